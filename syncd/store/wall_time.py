"""The times in the mirror by this host's clock, and how they follow a jump of the clock."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from syncd.clock import Mark
from syncd.core.clock_jump import RECENT, Jump
from syncd.core.timestamps import from_text, maybe_from_text, to_text
from syncd.core.webhook_health import WebhookHealth
from syncd.store import catch_up
from syncd.store.rows import get_state, put_state
from syncd.store.time_ranges import first_id_since

Columns = tuple[tuple[str, tuple[str, ...]], ...]

# The beginning or the end of a wait: it moves with the clock, so the wait keeps its length.
_TIMERS: Columns = (
    ("items", ("not_before",)),
    ("variants", ("delivered_at",)),
    ("refresh_queue", ("urgent_at", "settle_at", "final_at")),
    ("unplaced_variants", ("delivered_at",)),
    ("calls", ("at",)),
)
# The time of an observation: it never lies in the future. Times of Dreamship's clock (event_at,
# read_at) do not belong to this host. `change_log` keeps its times, because readers of the feed
# may store their position by them.
_EVENTS: Columns = (
    ("items", ("confirmed_at",)),
    ("variants", ("confirmed_at", "changed_at", "decided_at", "missing_since")),
    ("deliveries", ("received_at",)),
    ("unplaced_variants", ("not_found_at",)),
    ("sweeps", ("began_at", "ended_at")),
    ("webhook_states", ("began_at",)),
    ("list_rows", ("changed_at",)),
    ("skus", ("listed_at", "not_found_at")),
)
SLOWDOWN_AT = "background_slowdown_at"
_TIMER_KEYS = ("paused_until", SLOWDOWN_AT)
_EVENT_KEYS = ("daemon_seen_at", "accepting_since", "last_delivery_at", *catch_up.TIME_KEYS)


def last_mark(db: sqlite3.Connection) -> Mark | None:
    """Return the mark of the last sign of life."""
    last_seen_at = maybe_from_text(get_state(db, "daemon_seen_at"))
    if last_seen_at is None:
        return None
    stored = get_state(db, "clock_mark")
    mark = Mark(last_seen_at) if stored is None else msgspec.json.decode(stored, type=Mark)
    # An older version may have stored a later sign of life, without a mark.
    return mark if mark.at == last_seen_at else Mark(last_seen_at)


def newest_time(db: sqlite3.Connection) -> tuple[Mark | None, datetime] | None:
    """Return the last mark and the newest stored time; None in a new mirror."""
    mark = last_mark(db)
    found = db.execute(
        """SELECT max(confirmed_at) FROM items UNION ALL
           SELECT * FROM (SELECT received_at FROM deliveries ORDER BY delivery_id DESC LIMIT 1)"""
    ).fetchall()
    times = [from_text(at) for (at,) in found if at is not None]
    if mark is not None:
        times.append(mark.at)
    return (mark, max(times)) if times else None


def put_mark(db: sqlite3.Connection, mark: Mark) -> None:
    """Store the mark of one sign of life, with the times of both clocks."""
    put_state(db, "daemon_seen_at", to_text(mark.at))
    put_state(db, "clock_mark", msgspec.json.encode(mark).decode())


def follow(db: sqlite3.Connection, jump: Jump, missed_grace: timedelta) -> None:
    """Move the stored times; after an absence, no earlier change counts as a missed delivery."""
    if jump.shift:
        _move(db, jump)
    if jump.is_set_back:
        _clamp_future_timestamps(db, jump)
    if jump.is_absence:
        put_state(db, "accepting_since", to_text(jump.after))
        # During the absence, a late delivery of these changes could not arrive.
        db.execute(
            "UPDATE change_log SET during_downtime = 1 WHERE missed = 1 AND recorded_at > ?",
            (to_text(jump.last_ran_at - missed_grace),),
        )
    if jump.needs_confirmation:
        put_state(db, "clock_suspect", "1")


def _move(db: sqlite3.Connection, jump: Jump) -> None:
    mark = last_mark(db)
    db.create_function("timer", 1, _texts(jump.timer, jump), deterministic=True)
    db.create_function("event", 1, _texts(jump.event, jump), deterministic=True)
    edge_at = min(jump.before, jump.after) - RECENT
    edge = to_text(edge_at)
    moved: list[tuple[str, Columns, tuple[str, ...]]] = [("timer", _TIMERS, _TIMER_KEYS)]
    if jump.is_set_back:
        moved.append(("event", _EVENTS, _EVENT_KEYS))
    for function, tables, keys in moved:
        for table, columns in tables:
            for column in columns:
                # No index has the time of a delivery; the order of ids is the order of time.
                first = first_id_since(db, table, edge_at) if table == "deliveries" else 0
                db.execute(
                    f"""UPDATE {table} SET {column} = {function}({column})
                        WHERE {column} > ? AND rowid >= ?""",  # noqa: S608 - constants
                    (edge, first),
                )
        for key in keys:
            db.execute(
                f"UPDATE state SET value = {function}(value) WHERE key = ? AND value > ?",  # noqa: S608
                (key, edge),
            )
    if mark is not None and jump.is_same_boot:
        put_mark(db, Mark(mark.at + jump.shift, mark.boot_id, mark.elapsed_s))
    offset_s = float(get_state(db, "clock_offset_s") or 0) - jump.shift.total_seconds()
    put_state(db, "clock_offset_s", str(offset_s))


def _clamp_future_timestamps(db: sqlite3.Connection, jump: Jump) -> None:
    """Limit to now the times that are not stored in columns of their own."""
    now = jump.after
    health = msgspec.json.decode(get_state(db, "webhooks") or "{}", type=WebhookHealth)
    put_state(db, "webhooks", msgspec.json.encode(health_after(health, jump)).decode())
    hour = to_text(now.replace(minute=0, second=0, microsecond=0))
    db.execute(
        """INSERT INTO counts SELECT name, ?1, sum(n) FROM counts WHERE hour > ?1 GROUP BY name
           ON CONFLICT (name, hour) DO UPDATE SET n = n + excluded.n""",
        (hour,),
    )
    db.execute("DELETE FROM counts WHERE hour > ?", (hour,))
    # When the clock reaches such a time, the old change would count as a new one.
    db.execute(
        "UPDATE change_log SET during_downtime = 1 WHERE missed = 1 AND recorded_at > ?",
        (to_text(now),),
    )


def health_after(health: WebhookHealth, jump: Jump) -> WebhookHealth:
    """Return the health of the webhook with its times moved."""
    since, forgiven = health.since, health.forgiven_until
    return WebhookHealth(
        health.state,
        None if since is None else jump.event(since),
        None if forgiven is None else jump.event(forgiven),
    )


def _texts(move: Callable[[datetime], datetime], jump: Jump) -> Callable[[str], str]:
    def moved(text: str) -> str:
        try:
            return to_text(move(from_text(text)))
        except (ValueError, OverflowError):
            return to_text(jump.after)

    return moved
