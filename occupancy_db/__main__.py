"""``python -m occupancy_db``: the command line where no entry point is installed, as in the ops container."""

from occupancy_db.cli import main

main()
