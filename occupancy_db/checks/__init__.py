"""One list of checks, from which status, notifications, metrics, alerts and the report are made."""
