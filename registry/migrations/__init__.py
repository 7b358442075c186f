"""The schema's history, one alembic revision a file; shipped with the package and run by `registry.schema`."""
