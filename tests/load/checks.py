"""Checks of a mirror after any load: no delivery is lost, and none is applied twice."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from load.report import Accepted, Report


def problems(mirror: Path, report: Report) -> list[str]:
    """Return the problems of the mirror as sentences."""
    with closing(sqlite3.connect(f"{mirror.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.execute("BEGIN")
        return [*_lost(db, report.accepted), *_twice(db), *_feed(db), *_damage(db)]


class Follower:
    """A reader of the feed that stores all that it has read: no row may change or disappear."""

    def __init__(self, mirror: Path) -> None:
        self._mirror = mirror
        self._read: list[tuple[object, ...]] = []

    def follow(self) -> list[str]:
        """Read the whole feed again; return its problems."""
        with closing(
            sqlite3.connect(f"{self._mirror.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            feed = db.execute("SELECT * FROM changes ORDER BY seq").fetchall()
        before, self._read = self._read, feed
        return [] if feed[: len(before)] == before else ["a row has changed or is gone"]


def _lost(db: sqlite3.Connection, accepted: list[Accepted]) -> list[str]:
    """Find accepted deliveries that are not stored, or had no effect."""
    stored = Counter(row[0] for row in db.execute("SELECT event_id FROM deliveries"))
    found = [
        f"{one} is stored {stored[one.event_id]} times"
        for one in accepted
        if stored[one.event_id] != 1
    ]
    latest: dict[int, Accepted] = {}
    for one in accepted:
        other = latest.get(one.variant_id)
        if other is None or one.event_at > other.event_at:
            latest[one.variant_id] = one
    mirrored = dict(db.execute("SELECT variant_id, availability FROM availability"))
    found += [
        f"the mirror has {mirrored.get(variant_id)!r}, and the latest delivery is {one}"
        for variant_id, one in latest.items()
        if mirrored.get(variant_id) != one.value
    ]
    return found


def _twice(db: sqlite3.Connection) -> list[str]:
    """Find values that were applied more than once; only one delivery has each value."""
    rows = db.execute(
        """SELECT variant_id, availability, count(*) FROM changes
           WHERE old_availability IS NOT availability
           GROUP BY variant_id, availability HAVING count(*) > 1"""
    )
    return [f"{value!r} was applied to {variant} {times} times" for variant, value, times in rows]


def _feed(db: sqlite3.Connection) -> list[str]:
    """Find gaps in the change feed: applied to an empty table, it must equal the view."""
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
        f"variant {variant_id}: the feed ends with {table.get(variant_id)}, the view has {row}"
        for variant_id, row in view.items()
        if table.get(variant_id) != row
    ]
    return found + [f"variant {one} is in the feed only" for one in table.keys() - view.keys()]


def _damage(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
