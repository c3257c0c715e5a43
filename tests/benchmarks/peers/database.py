"""The database that every peer writes: made before a run, and examined after it."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.mirrors import FIRST_VARIANT, VALUES, item_of
from syncd.core.timestamps import to_text

FOLDER = Path(__file__).resolve().parent / "sql"
STATEMENTS = {
    name: (FOLDER / f"{name}.sql").read_text().strip()
    for name in ("find", "delivery", "variant", "change", "refresh")
}


def create(path: Path, variants: int) -> None:
    """Make a database of so many variants, all with the first value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    changed_at = to_text(datetime.now(UTC) - timedelta(hours=1))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript((FOLDER / "schema.sql").read_text())
        connection.executemany(
            """INSERT INTO variants (variant_id, item_id, name, color, size, availability,
                   sellable, changed_at)
               VALUES (?, ?, 'Sport Grey / XL', 'Sport Grey', 'XL', ?, 1, ?)""",
            (
                (variant, item_of(variant), VALUES[0], changed_at)
                for variant in range(FIRST_VARIANT, FIRST_VARIANT + variants)
            ),
        )


def open_durable(path: Path) -> sqlite3.Connection:
    """Return a connection with the durability of the daemon; any thread may use it."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    return database


def keep(
    database: sqlite3.Connection, event: dict[str, str], data: dict[str, Any], body: bytes
) -> str:
    """Store one authentic delivery inside a transaction, and return its outcome."""
    row: dict[str, Any] = {
        "event_id": event["uuid"],
        "event_at": event["timestamp"],
        "action": event["action"],
        "variant_id": data["id"],
        "item_id": data["item"],
        "availability": data["availability"],
        "body": body,
    }
    found = database.execute(STATEMENTS["find"], row).fetchone()
    row["outcome"], row["old_availability"], row["old_sellable"] = found
    if not database.execute(STATEMENTS["delivery"], row).rowcount:
        return "duplicate"
    for name in ("variant", "change", "refresh"):
        database.execute(STATEMENTS[name], row)
    return str(row["outcome"])


def kept(path: Path) -> int:
    """Return the number of deliveries that are stored whole.

    Raises AssertionError if a change, a variant's value or a refresh request is missing.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        stored, applied, changes = connection.execute(
            """SELECT count(*), total(outcome = 'applied'), (SELECT count(*) FROM changes)
               FROM deliveries"""
        ).fetchone()
        wrong = connection.execute(
            """SELECT count(*) FROM deliveries d LEFT JOIN variants v USING (variant_id)
               LEFT JOIN refresh_requests r ON r.item_id = d.item_id
               WHERE r.item_id IS NULL OR v.event_at IS NULL OR v.event_at < d.event_at
                  OR (v.event_at = d.event_at AND v.availability
                      IS NOT json_extract(CAST(d.body AS TEXT), '$.data.availability'))"""
        ).fetchone()[0]
    if stored != applied or applied != changes or wrong:
        raise AssertionError(
            f"{stored} deliveries, {applied} of them applied, {changes} changes, {wrong} wrong rows"
        )
    return int(stored)
