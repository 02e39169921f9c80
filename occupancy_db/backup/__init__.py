"""Backups that were restored and compared, restores that leave the live database alone until the end."""
