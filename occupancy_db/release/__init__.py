"""A release's migrations on a live database: pre-check, backup, migration, verification."""
