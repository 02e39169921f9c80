"""The server: its version and its settings."""

POSTGRES_MAJOR = 16
"""The major version of PostgreSQL that this package supports."""
