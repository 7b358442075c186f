"""What leaves the house: webhooks and events, from an outbox."""
