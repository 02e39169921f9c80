"""Backup sets, which are verified by restoring them, and restores, which exchange databases at the end."""
