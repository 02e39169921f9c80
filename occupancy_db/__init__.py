"""The database half of an occupancy prediction system: settings, connections, models, migrations, command line."""
