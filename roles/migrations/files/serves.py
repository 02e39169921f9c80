"""Write and read as the application does: over TLS, at the address that it uses. Everything is rolled back.

Prints the error and exits with 1 if that fails. The address comes from libpq's variables (PGHOST …).
"""

import os
import sys
from pathlib import Path

import psycopg2

STATEMENTS = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity)"
    " VALUES (now(), 'office', 'gate', false, 'gate')",
    "SELECT room, occupancy_status FROM room_occupancy_status",
)

try:
    connection = psycopg2.connect(password=Path(os.environ["PASSWORD_FILE"]).read_text())
    with connection.cursor() as cursor:
        for statement in STATEMENTS:
            cursor.execute(statement)
    connection.rollback()
    connection.close()
except (psycopg2.Error, OSError) as error:
    sys.exit(str(error))
