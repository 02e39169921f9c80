"""The place of a benchmark: one at a time, with enough disk space, and without a developer's database."""

import fcntl
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.server import ROOT, NoEngineError
from occupancy_db.settings import Settings

CACHE = ROOT / ".cache/bench"

console = Console(stderr=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print a step while it runs, and its duration afterwards."""
    start = time.perf_counter()
    with console.status(what):
        yield
    console.print(f"{time.perf_counter() - start:7.1f} s  {what}", highlight=False)


@contextmanager
def workplace(gigabytes: int) -> Iterator[Path]:
    """Yield an empty working directory, which is removed afterwards; exits if a benchmark cannot run.

    Args:
        gigabytes: Disk space that is needed, in GiB.
    """
    # The developer's environment must not lead the benchmark to the developer's database.
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    CACHE.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(CACHE).free < gigabytes << 30:
        sys.exit(f"not enough disk: {gigabytes} GiB are needed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (CACHE / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=CACHE) as work:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another benchmark is running here")
        os.chdir(work)  # where no .env is
        try:
            yield Path(work)
        except NoEngineError as error:
            sys.exit(str(error))
        finally:
            os.chdir(ROOT)


def machine() -> dict[str, Any]:
    """Return the hardware and the Python version."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
    }
