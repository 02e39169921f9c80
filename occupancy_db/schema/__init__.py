"""The schema: revisions and their declarations, definitions, privileges, operations for migrations."""
