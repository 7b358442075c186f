"""Prefect flows and the command line: when things happen, never how. Verbs are in `flows.commands`."""
