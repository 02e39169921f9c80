"""A Python process that has imported the commands, and forks a process for each call.

Importing takes half a second of each command, which would be most of the time of the tests. Each command is
still a process with its own arguments, environment, directory, streams and exit code. The tests of ten
runners and of the manual's script call the installed entry points.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

PROGRAMS = {"occupancy-db": "occupancy_db.cli", "alembic": "alembic.config"}
ALSO = [
    "alembic.command",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "occupancy_db.release.protocol",
    "occupancy_db.history.retention",
]


class Prefork:
    """The client: starts the process, runs commands, and ends the process."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Args: environment: variables of the process beside those of the tests."""
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def run(
        self, command: tuple[str, ...], env: dict[str, str], cwd: Path, stdin: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, as subprocess.run with captured text does."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as directory:
            streams = [Path(directory, name) for name in ("stdin", "stdout", "stderr")]
            streams[0].write_text(stdin)
            request = {
                "command": command,
                "env": env,
                "cwd": str(cwd),
                "streams": [str(path) for path in streams],
            }
            print(json.dumps(request), file=self._server.stdin, flush=True)
            code = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(command, code, streams[1].read_text(), streams[2].read_text())

    def close(self) -> None:
        """End the process by closing its input."""
        for stream in (self._server.stdin, self._server.stdout):
            assert stream is not None
            stream.close()
        self._server.wait(10)


def serve(requests: IO[str]) -> None:
    """The server: read a request from each line, and answer with the exit code."""
    for module in [*PROGRAMS.values(), *ALSO]:
        importlib.import_module(module)
    for _ in importlib.import_module("occupancy_db.cli.app").Commands().values():
        pass  # a lookup imports the command
    for line in requests:
        child = os.fork()
        if child == 0:
            os._exit(become(json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def become(request: dict[str, Any]) -> int:
    """Run a command in this process, as in a new process, and return its exit code."""
    for number, path in enumerate(request["streams"]):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT), number)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = request["command"]
    code = 0
    try:
        importlib.import_module(PROGRAMS[sys.argv[0]]).main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(sys.stdin)
