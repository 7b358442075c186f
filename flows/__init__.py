"""Prefect flows and the command line: when things happen, never how. See `flows.command_line` for the verbs."""
