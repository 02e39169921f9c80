"""Benchmarks of the product, compared with the schema of the operator's manual."""
