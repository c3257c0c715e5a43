"""The parts that tests of the publication share: a mirror that changes, and its publisher."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict, Unpack

from targets import Database as TargetDatabase

from syncd.config.publish import TargetUrl
from syncd.core.policy import Policy
from syncd.core.publishing import Cursor, Slice, Source
from syncd.core.timestamps import to_text
from syncd.publish.lease import Terms
from syncd.publish.publisher import Publisher
from syncd.publish.turn import Turn
from syncd.store import pushes, take_over
from syncd.store.history import dicts
from syncd.store.listings import VERSION_KEY
from syncd.store.migrations import migrate
from syncd.store.rows import get_state, put_state

POLICY = Policy(sellable=frozenset({"in_stock"}), settle=timedelta(seconds=60))
# The times of a view; the target has them as times, the mirror as text.
COLUMNS = {
    "availability": (
        *("variant_id", "item_id", "item_name", "variant_name", "color", "size", "availability"),
        *("sellable", "removed", "verifying", "changed_at", "confirmed_at", "value_source"),
        *("reason", "cost", "basic_cost", "item_release_status", "item_operational_status"),
        "countries",
    ),
    "listings": (
        *("sku", "title", "variant_id", "item_id", "item_name", "variant_name", "color", "size"),
        *("availability", "sellable", "reason", "removed", "verifying", "known", "changed_at"),
        "confirmed_at",
    ),
}


@functools.cache
def empty() -> bytes:
    """Return an empty mirror; to copy one is faster than to migrate one."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        return db.serialize()


class Mirror:
    """A mirror in a file that a test changes directly."""

    def __init__(self, folder: Path, *, swept: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "availability.db"
        self.path.write_bytes(empty())
        self.db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = OFF")
        self.identify()
        self.at = datetime.now(UTC) - timedelta(minutes=5)
        if swept:
            self.sweep()

    def close(self) -> None:
        self.db.close()

    def identify(self) -> None:
        """Give the mirror an id, as the start of a daemon does."""
        pushes.identify(self.db, self.path.stat().st_ino)

    @property
    def id(self) -> str | None:
        return pushes.mirror_id(self.db)

    def become_another(self) -> None:
        """Change the id, as a restored backup or another host does."""
        self.db.execute("DELETE FROM state WHERE key = ?", (pushes.MIRROR_ID,))
        self.identify()

    def tick(self) -> str:
        self.at += timedelta(milliseconds=7)
        return to_text(self.at)

    def sweep(self) -> None:
        at = self.tick()
        self.db.execute(
            """INSERT INTO sweeps (cause, is_catalogue, began_at, ended_at, result)
               VALUES ('schedule', 1, ?, ?, 'complete')""",
            (at, at),
        )

    def item(
        self, item_id: int, name: str = "Tee", *, at: str | None = None, **columns: Any
    ) -> None:
        """Confirm an item by a read."""
        values = {"name": name, "confirmed_at": at or self.tick(), "countries": '["US"]'} | columns
        names = ", ".join(values)
        places = ", ".join("?" * len(values))
        updates = ", ".join(f"{one} = excluded.{one}" for one in values)
        self.db.execute(
            f"""INSERT INTO items (item_id, {names}) VALUES (?, {places})
                ON CONFLICT (item_id) DO UPDATE SET {updates}""",  # noqa: S608
            (item_id, *values.values()),
        )

    def change(
        self,
        variant_id: int,
        value: str | None,
        *,
        sellable: bool | None = None,
        item_id: int | None = 1,
        **columns: Any,
    ) -> int:
        """Change a variant with a row of the feed; return its seq."""
        sold = value == "in_stock" if sellable is None else sellable
        at = self.tick()
        self.db.execute("BEGIN IMMEDIATE")
        old = self.db.execute(
            "SELECT value, sellable FROM variants WHERE variant_id = ?", (variant_id,)
        ).fetchone() or (None, 0)
        (seq,) = self.db.execute(
            """INSERT INTO change_log (variant_id, item_id, old_availability, availability,
                   old_sellable, sellable, cause, rule, missed, during_downtime, occurred_at,
                   recorded_at)
               VALUES (?, ?, ?, ?, ?, ?, 'webhook', 'x', 0, 0, ?, ?) RETURNING seq""",
            (variant_id, item_id, old[0], value, old[1], sold, at, at),
        ).fetchone()
        self.put(variant_id, value, sellable=sold, item_id=item_id, seq=seq, at=at, **columns)
        self.db.execute("COMMIT")
        return int(seq)

    def put(
        self,
        variant_id: int,
        value: str | None,
        *,
        sellable: bool,
        item_id: int | None = 1,
        seq: int | None = None,
        at: str | None = None,
        **columns: Any,
    ) -> None:
        """Write the row of a variant, without a row of the feed."""
        at = at or self.tick()
        self.db.execute(
            """INSERT INTO variants (variant_id, item_id, name, color, size, value, sellable,
                   confirmed_at, changed_at, source, rule, decided_at, last_change_seq,
                   conflicting_values, missing_since, cost)
               VALUES (:id, :item, :name, 'red', 'XL', :value, :sellable, :at, :at, 'webhook', 'x',
                       :at, :seq, :conflicting_values, :missing_since, '4.20')
               ON CONFLICT (variant_id) DO UPDATE SET item_id = :item, name = :name, value = :value,
                   sellable = :sellable, confirmed_at = :at, changed_at = :at,
                   last_change_seq = coalesce(:seq, last_change_seq),
                   conflicting_values = :conflicting_values, missing_since = :missing_since""",
            {
                "id": variant_id,
                "item": item_id,
                "value": value,
                "sellable": sellable,
                "at": at,
                "seq": seq,
                "name": f"v{variant_id}",
                "conflicting_values": None,
                "missing_since": None,
            }
            | columns,
        )

    def replace_skus(self, *rows: tuple[str, int]) -> None:
        """Replace the SKUs."""
        at = self.tick()
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("DELETE FROM skus")
        self.db.executemany(
            "INSERT INTO skus (sku, variant_id, title, listed_at) VALUES (?, ?, 'T', ?)",
            [(*row, at) for row in rows],
        )
        put_state(self.db, VERSION_KEY, str(int(get_state(self.db, VERSION_KEY) or 0) + 1))
        self.db.execute("COMMIT")

    def view(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a view, as the target should have them."""
        key = COLUMNS[name][0]
        found = dicts(self.db.execute(f"SELECT * FROM {name} ORDER BY {key}"))  # noqa: S608
        rows = []
        for row in found:
            if "source" in row:
                row["value_source"] = row.pop("source")
            rows.append({column: comparable(column, row[column]) for column in COLUMNS[name]})
        return rows


class CopySink:
    """Stores the rows of the target in a mirror, as the write thread of a daemon does."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.ranges = 0
        self.on_range: Callable[[int], None] = lambda _: None
        self.has_held = False

    def put(
        self, part: Slice, newest_event_at: datetime | None, before: Cursor | None
    ) -> take_over.Stored:
        origin = take_over.Origin(POLICY, datetime.now(UTC), newest_event_at)
        db = self.mirror.db
        db.execute("BEGIN IMMEDIATE")
        try:
            return take_over.put(db, part, origin, before=before)
        finally:
            db.execute("COMMIT")
            self.ranges += 1
            self.on_range(self.ranges)

    def probe(self) -> None:
        take_over.probe(self.mirror.db, datetime.now(UTC))

    def note_held(self) -> None:
        self.has_held = True

    def finish(self, held: Source) -> None:
        take_over.finish(self.mirror.db, held, datetime.now(UTC))


def comparable(column: str, value: Any) -> Any:
    """Return a value of either server or of the mirror in one form."""
    if column in {"sellable", "removed", "verifying", "known"}:
        return bool(value)
    if column.endswith("_at") and isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
    return value


def target_view(target: TargetDatabase, name: str, source: str = "default") -> list[dict[str, Any]]:
    """Return the rows of a view of the target."""
    rows = [row for row in target.rows(name) if row["source"] == source]
    found = [{column: comparable(column, row[column]) for column in COLUMNS[name]} for row in rows]
    key = COLUMNS[name][0]
    return sorted(found, key=lambda row: row[key])


def is_equal(mirror: Mirror, target: TargetDatabase, source: str = "default") -> bool:
    """Return whether both views of the target have exactly the rows of the mirror."""
    return all(mirror.view(name) == target_view(target, name, source) for name in COLUMNS)


def feed_state(target: TargetDatabase, source: str = "default") -> dict[int, tuple[Any, bool]]:
    """Return the state of a reader who applied the whole feed of the target."""
    state: dict[int, tuple[Any, bool]] = {}
    last = 0
    for row in target.rows("changes"):
        if row["source"] != source:
            continue
        assert row["seq"] > last
        last = row["seq"]
        variant_id = row["variant_id"]
        before = state.get(variant_id)
        if before is not None:
            assert before == (row["old_availability"], bool(row["old_sellable"])), row
        state[variant_id] = row["availability"], bool(row["sellable"])
    return state


def agrees_with_feed(target: TargetDatabase, source: str = "default") -> bool:
    """Return whether the feed leads to what `availability` says, where the feed has the variant."""
    rows = {row["variant_id"]: row for row in target_view(target, "availability", source)}
    return all(
        (rows[variant]["availability"], rows[variant]["sellable"]) == state
        for variant, state in feed_state(target, source).items()
    )


class Options(TypedDict, total=False):
    """The options of a publisher that tests change."""

    source: str
    keep_changes_s: float
    terms: Terms | None
    turn: Turn | None


def new_publisher(url: TargetUrl, mirror: Path, **options: Unpack[Options]) -> Publisher:
    """Return a publisher that does not run yet."""
    usual: Options = {"source": "default", "keep_changes_s": 1e6}
    return Publisher(url, schema="syncd", mirror=mirror, **(usual | options))


@contextlib.contextmanager
def publishing(url: TargetUrl, mirror: Path, **options: Unpack[Options]) -> Iterator[Publisher]:
    """Give a publisher that runs."""
    one = new_publisher(url, mirror, **options)
    stop = threading.Event()

    def wake() -> None:
        while not stop.wait(0.02):
            one.wake()

    thread = threading.Thread(target=wake)
    one.start()
    thread.start()
    try:
        yield one
    finally:
        stop.set()
        thread.join()
        one.stop()
        one.join(20)
        assert not one._thread.is_alive()


def until(done: Callable[[], object], within_s: float = 30.0) -> None:
    """Return as soon as the condition holds; fail if it does not hold in time."""
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.02)


def published(one: Publisher, mirror: Mirror) -> bool:
    """Return whether a publisher has published all changes and every copy."""
    (newest,) = mirror.db.execute("SELECT coalesce(max(seq), 0) FROM change_log").fetchone()
    state = one.state
    return state.state == "active" and state.mirror_seq == newest and not state.is_copying


def until_equal(one: Publisher, mirror: Mirror, target: TargetDatabase) -> None:
    """Return as soon as the target has all of the mirror; fail with both if it does not in time."""
    try:
        until(lambda: published(one, mirror) and is_equal(mirror, target))
    except AssertionError:
        raise AssertionError(
            f"{one.state} {mirror.view('availability')} {target_view(target, 'availability')}"
        ) from None
