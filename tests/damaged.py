"""Damages one page of a database file, as a broken disk does."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path


def damage(path: Path, page: int) -> bytes:
    """Overwrite the beginning of one page; return the previous bytes."""
    with contextlib.closing(sqlite3.connect(path)) as mirror:
        (size,) = mirror.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        before = file.read(100)
        file.seek((page - 1) * size)
        file.write(b"\xff" * 100)
    return before
