"""Strategies side by side on a stream that is not registered."""
