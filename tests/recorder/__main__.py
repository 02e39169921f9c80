"""Writes the dumps of recorders again."""

import subprocess
import tempfile
from pathlib import Path

from tests.recorder import ENVIRONMENTS, HERE, VERSIONS, dump, from_models

with tempfile.TemporaryDirectory() as directory:
    for schema, (version, *_) in VERSIONS.items():
        made = from_models(schema, Path(directory, str(schema)))
        (HERE / f"schema-{schema}.sql").write_text(dump(made))
        if schema not in (30, 50):
            continue
        for server in ("postgresql", "mysql"):
            python, program = ENVIRONMENTS / version / "bin/python", HERE / "make.py"
            tables = subprocess.run([python, program, server], stdout=subprocess.PIPE, check=True).stdout
            (HERE / f"schema-{schema}-{server}.sql").write_bytes(tables)
