"""``python -m occupancy_db``: the command line without an installed entry point, as in the ops container."""

from occupancy_db.cli import main

main()
