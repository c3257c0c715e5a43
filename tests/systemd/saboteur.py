"""Blocks a part of a running daemon on purpose; loaded into it as `sitecustomize`.

Python imports that module by itself if it is in PYTHONPATH. This one watches the file named by
SABOTEUR, and blocks the part that the file names for ever: `loop`, `scheduler` or `writer`.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from typing import Any

PARTS = ("loop", "scheduler", "writer")

_FOR_EVER_S = 3600.0


def _found(wanted: type) -> Any:
    """Return the one object of a class, wherever it is referenced."""
    gc.unfreeze()  # otherwise the objects that existed when the daemon was ready are hidden
    return next(one for one in gc.get_objects() if type(one) is wanted)


def _block(part: str) -> None:
    # The classes are imported here, because the daemon imports this module before all others.
    if part == "writer":
        from syncd.store import Database  # noqa: PLC0415

        _found(Database)._executor.submit(time.sleep, _FOR_EVER_S)
        return
    from apscheduler.schedulers.asyncio import AsyncIOScheduler  # noqa: PLC0415

    scheduler = _found(AsyncIOScheduler)
    loop = scheduler._eventloop
    if part == "loop":
        loop.call_soon_threadsafe(time.sleep, _FOR_EVER_S)
    else:
        loop.call_soon_threadsafe(scheduler.pause)


def _watch(order: Path) -> None:
    while not order.exists():
        time.sleep(0.05)
    part = order.read_text().strip()
    order.unlink()
    _block(part)


if "SABOTEUR" in os.environ:
    threading.Thread(target=_watch, args=(Path(os.environ["SABOTEUR"]),), daemon=True).start()
