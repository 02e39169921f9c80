"""``occupancy-db`` in a separate process, with the changes that the variable FAULT (JSON) describes.

``hold`` MODULE:NAME  pauses the call of this function with arguments that match ``when``: writes the file
                      ``reached``, and continues when the file ``go`` exists, both in ``directory``
``days``              shifts the clock by this number of days
``set``               replaces values, by MODULE:NAME
"""

import asyncio
import functools
import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import occupancy_db
from occupancy_db.cli import main

POLL = 0.01


def find(place: str) -> tuple[Any, str]:
    """Return the object that has an attribute, and the name of the attribute.

    Raises:
        AttributeError: there is no such attribute. Otherwise the fault would never happen, and the test
            would pass.
    """
    module, names = place.split(":")
    *path, name = names.split(".")
    owner = functools.reduce(getattr, path, importlib.import_module(module))
    getattr(owner, name)
    return owner, name


def hold(place: str, when: str, directory: str) -> None:
    owner, name = find(place)
    function: Callable[..., Any] = getattr(owner, name)
    reached, go = Path(directory, "reached"), Path(directory, "go")

    def waiting(*arguments: Any) -> Iterator[None]:
        if re.search(when, repr(arguments)) and not reached.exists():
            reached.touch()
            while not go.exists():
                yield

    async def held(*args: Any, **kwargs: Any) -> Any:
        for _ in waiting(args, kwargs):
            await asyncio.sleep(POLL)
        return await function(*args, **kwargs)

    def held_at_once(*args: Any, **kwargs: Any) -> Any:
        for _ in waiting(args, kwargs):
            time.sleep(POLL)
        return function(*args, **kwargs)

    setattr(owner, name, held if inspect.iscoroutinefunction(function) else held_at_once)


def set_clock(days: int) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(days=days)

    # A command imports its modules when it runs. Import all of them first.
    for found in pkgutil.walk_packages(occupancy_db.__path__, "occupancy_db."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    changed = set()
    for name, module in list(sys.modules.items()):
        if name.startswith("occupancy_db.") and getattr(module, "datetime", None) is datetime:
            module.datetime = Clock  # type: ignore[attr-defined]
            changed.add(name)
    assert changed >= {f"occupancy_db.backup.{name}" for name in ("create", "sets")}, changed


if __name__ == "__main__":
    fault = json.loads(os.environ.pop("FAULT"))
    if "hold" in fault:
        hold(fault["hold"], fault.get("when", ""), fault["directory"])
    if "days" in fault:
        set_clock(fault["days"])
    for place, value in fault.get("set", {}).items():
        setattr(*find(place), value)
    main()
