"""The state of the daemon that survives a restart: calls, counters, signs of life."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from syncd.clock import Mark
from syncd.core import rate_limit
from syncd.core.rate_limit import MAX_WAIT_S, WINDOW, RateState, Slowdown
from syncd.core.timestamps import from_text, maybe_from_text, to_text
from syncd.core.webhook_health import WebhookHealth
from syncd.store.rows import get_state, put_state
from syncd.store.wall_time import SLOWDOWN_AT, put_mark

# The key of the number of calls that a process may not have stored; a clean stop deletes it.
_RESERVED = "calls_reserved"
_SLOWDOWN_RATE = "background_slowdown_per_minute"
# An estimate of Dreamship's clock varies by less from one answer to the next: `Date` has no
# fraction.
_SAME_OFFSET = timedelta(seconds=1)


class Beat(Struct, frozen=True):
    """One sign of life, with the counts since the last one."""

    mark: Mark
    webhooks: WebhookHealth
    reported_health: str | None
    clock_offset: timedelta
    counted: dict[str, int]

    def adds_to(self, last: Beat) -> bool:
        """Return whether it has anything new since `last`, besides its time."""
        return (
            (self.webhooks, self.reported_health) != (last.webhooks, last.reported_health)
            or any(self.counted.values())
            or abs(self.clock_offset - last.clock_offset) >= _SAME_OFFSET
        )


class SavedState(Struct, frozen=True):
    """The state that a daemon needs when it starts.

    `calls`: those of the last minute; `lost_calls`: how many more a crash may have lost.
    `slowdown`: the part of the background rate that the last 429 left.
    `complete_at`: when the last complete sweep of the catalogue began; `failures`: the number of
    sweeps since then that were not complete. `accepting_since`: since when deliveries could arrive
    without a break. `is_clock_suspect`: the clock ran ahead, and nothing has confirmed it since.
    """

    calls: list[datetime]
    lost_calls: int
    paused_until: datetime | None
    slowdown: Slowdown | None
    clock_offset: timedelta
    complete_at: datetime | None
    failures: int
    accepting_since: datetime | None
    webhooks: WebhookHealth
    reported_health: str | None
    is_clock_suspect: bool

    def pace(self, calls_per_minute: int, now: datetime) -> RateState:
        """Return the pace with which the calls continue."""
        return rate_limit.resume(
            calls_per_minute,
            self.calls,
            self.lost_calls,
            now,
            paused_until=self.paused_until,
            slowdown=self.slowdown,
        )


def reserve_calls(db: sqlite3.Connection, calls: Iterable[datetime], number: int) -> None:
    """Store the calls until now, and how many more may leave before they are stored."""
    store_calls(db, calls)
    put_state(db, _RESERVED, str(number))


def log_call(db: sqlite3.Connection, at: datetime, *, for_sweep: bool) -> None:
    """Store one call to Dreamship; `for_sweep` counts it for the sweeps that were open then."""
    text = to_text(at)
    db.execute("DELETE FROM calls WHERE at < ?", (to_text(at - 2 * WINDOW),))
    db.execute("INSERT INTO calls (at) VALUES (?)", (text,))
    if for_sweep:
        db.execute(
            "UPDATE sweeps SET calls = calls + 1 WHERE ended_at IS NULL AND began_at <= ?", (text,)
        )


def store_calls(db: sqlite3.Connection, calls: Iterable[datetime]) -> None:
    """Store all calls of a process that makes no more."""
    db.execute("DELETE FROM calls")
    db.executemany("INSERT INTO calls (at) VALUES (?)", [(to_text(at),) for at in calls])
    db.execute("DELETE FROM state WHERE key = ?", (_RESERVED,))


def log_throttled(
    db: sqlite3.Connection,
    now: datetime,
    paused_until: datetime,
    slowdown: Slowdown | None,
    *,
    for_sweep: bool,
) -> None:
    """Store one 429, the end of its wait, and the part of the background rate that it left."""
    put_state(db, "paused_until", to_text(paused_until))
    if slowdown is not None:
        put_state(db, SLOWDOWN_AT, to_text(slowdown.at))
        put_state(db, _SLOWDOWN_RATE, str(slowdown.per_minute))
    _count(db, now, {"throttled": 1})
    if for_sweep:
        db.execute("UPDATE sweeps SET throttled = throttled + 1 WHERE ended_at IS NULL")


def _slowdown(db: sqlite3.Connection, now: datetime) -> Slowdown | None:
    at, rate = maybe_from_text(get_state(db, SLOWDOWN_AT)), get_state(db, _SLOWDOWN_RATE)
    # In the future, it would never end if the clock was set back by years.
    return None if at is None or rate is None else Slowdown(min(at, now), float(rate))


def _clock_offset(db: sqlite3.Connection) -> timedelta:
    """Return the last known difference by which Dreamship's clock is ahead of the host's.

    Version 0.1.0 believed any single answer, and stored no mark of both clocks: a difference of
    days is an error.
    """
    offset = timedelta(seconds=float(get_state(db, "clock_offset_s") or 0))
    is_of_first_version = get_state(db, "clock_mark") is None
    return timedelta() if is_of_first_version and abs(offset) > timedelta(days=1) else offset


def restore(db: sqlite3.Connection, now: datetime) -> SavedState:
    """Return the state of the daemon before this one."""
    rows = db.execute("SELECT at FROM calls WHERE at >= ?", (to_text(now - WINDOW),))
    complete = db.execute(
        "SELECT max(began_at) FROM sweeps WHERE is_catalogue = 1 AND result = 'complete'"
    ).fetchone()[0]
    failures = db.execute(
        """SELECT count(*) FROM sweeps WHERE is_catalogue = 1 AND result != 'complete'
           AND began_at > ?""",
        (complete or "",),
    ).fetchone()[0]
    paused_until = maybe_from_text(get_state(db, "paused_until"))
    if paused_until is not None:
        paused_until = min(paused_until, now + timedelta(seconds=MAX_WAIT_S))
    return SavedState(
        calls=[from_text(row[0]) for row in rows],
        lost_calls=int(get_state(db, _RESERVED) or 0),
        paused_until=paused_until,
        slowdown=_slowdown(db, now),
        clock_offset=_clock_offset(db),
        complete_at=maybe_from_text(complete),
        failures=failures,
        accepting_since=maybe_from_text(get_state(db, "accepting_since")),
        webhooks=msgspec.json.decode(get_state(db, "webhooks") or "{}", type=WebhookHealth),
        reported_health=get_state(db, "reported_health"),
        is_clock_suspect=get_state(db, "clock_suspect") == "1",
    )


def mark_accepting(db: sqlite3.Connection, now: datetime) -> None:
    """Store that deliveries can arrive from now on, after a time in which they could not."""
    put_state(db, "accepting_since", to_text(now))


def trust_clock(db: sqlite3.Connection) -> None:
    """Store that the wall clock is right again."""
    put_state(db, "clock_suspect", "")


def is_sound(db: sqlite3.Connection) -> bool:
    """Check every page of the file; return whether none is damaged."""
    found = db.execute("PRAGMA quick_check(1)").fetchone()
    return bool(found == ("ok",))


def beat(db: sqlite3.Connection, sign: Beat) -> None:
    """Store one sign of life."""
    put_mark(db, sign.mark)
    put_state(db, "webhooks_state", sign.webhooks.state)
    if sign.reported_health is not None:
        put_state(db, "reported_health", sign.reported_health)
    put_state(db, "webhooks", msgspec.json.encode(sign.webhooks).decode())
    db.execute(
        """INSERT INTO webhook_states (state, began_at) SELECT :state, :began_at WHERE :state
           IS NOT (SELECT state FROM webhook_states ORDER BY change_id DESC LIMIT 1)""",
        {
            "state": sign.webhooks.state,
            "began_at": to_text(sign.webhooks.since or sign.mark.at),
        },
    )
    put_state(db, "clock_offset_s", str(sign.clock_offset.total_seconds()))
    _count(db, sign.mark.at, sign.counted)


def _count(db: sqlite3.Connection, now: datetime, counted: dict[str, int]) -> None:
    hour = to_text(now.replace(minute=0, second=0, microsecond=0))
    db.executemany(
        """INSERT INTO counts VALUES (?, ?, ?)
           ON CONFLICT (name, hour) DO UPDATE SET n = n + excluded.n""",
        [(name, hour, n) for name, n in counted.items() if n],
    )
