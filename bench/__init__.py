"""What keeping readings costs, measured beside the schema of the operator's manual."""
