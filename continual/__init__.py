"""Continual keeps medical-imaging models current: ingest, drift check, LoRA update, gate, registered version."""
