#!/usr/bin/env python3
"""The operator's manual calls the command line by this path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from occupancy_db.cli import main

if __name__ == "__main__":
    main()
