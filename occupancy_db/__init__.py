"""The database of an occupancy prediction system: settings, connections, models and tools."""
