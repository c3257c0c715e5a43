"""Writes a fixture: a mirror of this version with rows of every kind.

`python tests/schemas/dump.py` writes `tests/schemas/VERSION.sql`. Until a version is released, run
it after each change of the schema. After the release, its file and its migrations do not
change any more: add a migration, raise the version, and run it for the next file.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from simulation.month import Months

from syncd import __version__
from syncd.core.payload import parse

FOLDER = Path(__file__).parent


def fixture(version: str = __version__) -> Path:
    """Return the path of the fixture of a version."""
    return FOLDER / f"{version}.sql"


def dump() -> str:
    """Return a mirror of this version as SQL: variants, a feed, deliveries, one quarantined."""
    with tempfile.TemporaryDirectory() as folder:
        mirror = Path(folder) / "availability.db"
        days = timedelta(days=1)
        months = Months(mirror, per_day=100, deliveries=days, changes=days, items=1)
        months.database.open()
        try:
            asyncio.run(_live(months))
        finally:
            months.database.close()
        with closing(sqlite3.connect(f"{mirror.as_uri()}?mode=ro", uri=True)) as connection:
            return "\n".join(_lines(connection)) + "\n"


async def _live(months: Months) -> None:
    await months._fill()
    months.now += timedelta(minutes=1)
    batch = [months._delivery() for _ in range(5)]
    batch.append(parse(b'{"object": "item_variant", "event": {}}', months.now))
    batch.append(
        parse(
            b'{"object": "item_variant", "event": {"action": "item-variant-availability-updated"}}',
            months.now,
        )
    )
    await months._deliver(batch, months.now)


def _lines(connection: sqlite3.Connection) -> Iterator[str]:
    for name in ("application_id", "user_version"):
        (value,) = connection.execute(f"PRAGMA {name}").fetchone()
        yield f"PRAGMA {name} = {value};"
    yield from connection.iterdump()


def schema(script: str) -> list[str]:
    """Return the statements of a dump that make the schema, in an order of their own.

    The list of migrations is kept by a library, in a table as it likes it.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(script)
        found = connection.execute(
            """SELECT sql FROM sqlite_master WHERE sql IS NOT NULL
               AND tbl_name != '_sqlite_migrations' ORDER BY type, name"""
        ).fetchall()
        applied = connection.execute("SELECT name FROM _sqlite_migrations ORDER BY 1").fetchall()
        pragmas = re.findall(r"^PRAGMA .*;$", script, re.MULTILINE)
        return [*pragmas, *(name for (name,) in applied), *(sql for (sql,) in found)]


if __name__ == "__main__":
    fixture().write_text(dump())
    sys.stdout.write(f"{fixture()}\n")
