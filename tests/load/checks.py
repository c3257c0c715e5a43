"""What must hold of a mirror after any load, kills or not: nothing lost, nothing twice."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from load.report import Report, Told


def faults(mirror: Path, report: Report) -> list[str]:
    """Return what is wrong, in words; nothing, if every answer was kept."""
    with closing(sqlite3.connect(f"{mirror.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.execute("BEGIN")
        return [*_lost(db, report.told), *_twice(db), *_feed(db), *_damage(db)]


class Follower:
    """A reader of the feed that remembers all it ever read: nothing of it may change or go."""

    def __init__(self, mirror: Path) -> None:
        self._mirror = mirror
        self._read: list[tuple[object, ...]] = []

    def follow(self) -> list[str]:
        """Read the whole feed again; return what is wrong with it."""
        with closing(
            sqlite3.connect(f"{self._mirror.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            feed = db.execute("SELECT * FROM changes ORDER BY seq").fetchall()
        before, self._read = self._read, feed
        return [] if feed[: len(before)] == before else ["what the feed had told is not there now"]


def _lost(db: sqlite3.Connection, told: list[Told]) -> list[str]:
    """Find what was answered 200 and is not there, or has not had its effect."""
    kept = Counter(row[0] for row in db.execute("SELECT event_id FROM deliveries"))
    found = [f"{one} is kept {kept[one.event_id]} times" for one in told if kept[one.event_id] != 1]
    latest: dict[int, Told] = {}
    for one in told:
        known = latest.get(one.variant_id)
        if known is None or one.event_at > known.event_at:
            latest[one.variant_id] = one
    mirrored = dict(db.execute("SELECT variant_id, availability FROM availability"))
    found += [
        f"the mirror says {mirrored.get(variant_id)!r}, and the latest was {one}"
        for variant_id, one in latest.items()
        if mirrored.get(variant_id) != one.value
    ]
    return found


def _twice(db: sqlite3.Connection) -> list[str]:
    """Find values that were applied more than once; each was told by one delivery only."""
    rows = db.execute(
        """SELECT variant_id, availability, count(*) FROM changes
           WHERE old_availability IS NOT availability
           GROUP BY variant_id, availability HAVING count(*) > 1"""
    )
    return [f"{value!r} was applied to {variant} {times} times" for variant, value, times in rows]


def _feed(db: sqlite3.Connection) -> list[str]:
    """Find holes in the change feed: applied to an empty table it must end as the view."""
    found = []
    table: dict[int, tuple[str | None, int]] = {}
    for seq, variant_id, old, value, old_sellable, sellable in db.execute(
        """SELECT seq, variant_id, old_availability, availability, old_sellable, sellable
           FROM changes ORDER BY seq"""
    ):
        if table.get(variant_id, (None, 0)) != (old, old_sellable):
            found.append(f"change {seq} begins with {old!r}, not {table.get(variant_id)}")
        table[variant_id] = (value, sellable)
    view = {
        row[0]: (row[1], row[2])
        for row in db.execute("SELECT variant_id, availability, sellable FROM availability")
    }
    found += [
        f"variant {variant_id}: the feed ends with {table.get(variant_id)}, the view says {row}"
        for variant_id, row in view.items()
        if table.get(variant_id) != row
    ]
    return found + [f"variant {one} is in the feed only" for one in table.keys() - view.keys()]


def _damage(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
