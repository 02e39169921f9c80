"""The schema: migrations, what they declare, definitions and privileges."""
