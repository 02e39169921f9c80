"""The readings over time: partitions, hourly sums, retention, import and generated development data."""
