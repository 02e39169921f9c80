"""The report: one HTML file that shows the state of a database and of its home."""
