"""What the daemon remembers of itself: calls, counters, heartbeat."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import TypeVar

import msgspec
from msgspec import Struct

from syncd.clock import Mark
from syncd.core.policy import Policy
from syncd.core.rate_limit import MAX_WAIT_S, WINDOW
from syncd.core.timestamps import from_text, maybe_from_text, to_text
from syncd.core.webhook_health import WebhookHealth
from syncd.store.rows import get_state, put_state
from syncd.store.wall_time import put_mark

T = TypeVar("T")

# More than what one read of an item writes.
MARK_BYTES = 64 * 1024


class Beat(Struct, frozen=True):
    """One sign of life, with what was counted since the last one."""

    mark: Mark
    webhooks: WebhookHealth
    reported_health: str | None
    clock_offset: timedelta
    counted: dict[str, int]


class SavedState(Struct, frozen=True):
    """What survives a restart.

    `complete_at`: when the last complete sweep of the catalogue began; `failures`: how many ended
    otherwise since. `accepting_since`: from when on it, and those before it without a break, could
    take deliveries. `is_clock_suspect`: nothing has confirmed it since it ran ahead.
    """

    calls: list[datetime]
    paused_until: datetime | None
    clock_offset: timedelta
    complete_at: datetime | None
    failures: int
    accepting_since: datetime | None
    webhooks: WebhookHealth
    reported_health: str | None
    is_clock_suspect: bool


def log_call(connection: sqlite3.Connection, now: datetime, *, for_sweep: bool) -> None:
    """Keep one call to Dreamship, before it leaves."""
    connection.execute("DELETE FROM calls WHERE at < ?", (to_text(now - 2 * WINDOW),))
    connection.execute("INSERT INTO calls (at) VALUES (?)", (to_text(now),))
    if for_sweep:
        connection.execute("UPDATE sweeps SET calls = calls + 1 WHERE ended_at IS NULL")


def log_throttled(
    connection: sqlite3.Connection, now: datetime, paused_until: datetime, *, for_sweep: bool
) -> None:
    """Keep one 429 and until when it asked to wait."""
    put_state(connection, "paused_until", to_text(paused_until))
    _count(connection, now, {"throttled": 1})
    if for_sweep:
        connection.execute("UPDATE sweeps SET throttled = throttled + 1 WHERE ended_at IS NULL")


def _clock_offset(connection: sqlite3.Connection) -> timedelta:
    """Return how far Dreamship's clock is ahead of this host's, as it was known last.

    Version 0.1.0 believed any single answer, and kept no mark of both clocks: days are a mistake.
    """
    offset = timedelta(seconds=float(get_state(connection, "clock_offset_s") or 0))
    is_of_first_version = get_state(connection, "clock_mark") is None
    return timedelta() if is_of_first_version and abs(offset) > timedelta(days=1) else offset


def restore(connection: sqlite3.Connection, now: datetime) -> SavedState:
    """Read what a daemon that starts must know."""
    rows = connection.execute("SELECT at FROM calls WHERE at >= ?", (to_text(now - WINDOW),))
    complete = connection.execute(
        "SELECT max(began_at) FROM sweeps WHERE is_catalogue = 1 AND result = 'complete'"
    ).fetchone()[0]
    failures = connection.execute(
        """SELECT count(*) FROM sweeps WHERE is_catalogue = 1 AND result != 'complete'
           AND began_at > ?""",
        (complete or "",),
    ).fetchone()[0]
    paused_until = maybe_from_text(get_state(connection, "paused_until"))
    if paused_until is not None:
        paused_until = min(paused_until, now + timedelta(seconds=MAX_WAIT_S))
    return SavedState(
        calls=[from_text(row[0]) for row in rows],
        paused_until=paused_until,
        clock_offset=_clock_offset(connection),
        complete_at=maybe_from_text(complete),
        failures=failures,
        accepting_since=maybe_from_text(get_state(connection, "accepting_since")),
        webhooks=msgspec.json.decode(get_state(connection, "webhooks") or "{}", type=WebhookHealth),
        reported_health=get_state(connection, "reported_health"),
        is_clock_suspect=get_state(connection, "clock_suspect") == "1",
    )


def mark_accepting(connection: sqlite3.Connection, now: datetime) -> None:
    """Keep that deliveries can be taken from now on, after they could not for a while."""
    put_state(connection, "accepting_since", to_text(now))


def mark(connection: sqlite3.Connection, now: datetime, *, size: int) -> None:
    """Write a text of so many bytes that nobody reads: a full disk may still take a page."""
    text = to_text(now)
    put_state(connection, "mark", (text * (size // len(text) + 1))[: max(size, len(text))])


def rehearsed(work: Callable[[sqlite3.Connection], T], now: datetime) -> Callable[..., T]:
    """Return `work` as a rehearsal: it does all that `work` does and leaves nothing but a mark."""

    @wraps(work)
    def rehearse(connection: sqlite3.Connection) -> T:
        connection.execute("SAVEPOINT rehearsal")
        result = work(connection)
        connection.execute("ROLLBACK TO rehearsal")
        connection.execute("RELEASE rehearsal")
        # So that there is something to commit.
        mark(connection, now, size=0)
        return result

    return rehearse


def trust_clock(connection: sqlite3.Connection) -> None:
    """Keep that the wall clock is right again."""
    put_state(connection, "clock_suspect", "")


def is_sound(connection: sqlite3.Connection) -> bool:
    """Tell whether every page of the file is as it must be."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()
    return bool(found == ("ok",))


def beat(connection: sqlite3.Connection, sign: Beat) -> None:
    """Keep one sign of life."""
    put_mark(connection, sign.mark)
    put_state(connection, "webhooks_state", sign.webhooks.state)
    if sign.reported_health is not None:
        put_state(connection, "reported_health", sign.reported_health)
    put_state(connection, "webhooks", msgspec.json.encode(sign.webhooks).decode())
    connection.execute(
        """INSERT INTO webhook_states (state, began_at) SELECT :state, :began_at WHERE :state
           IS NOT (SELECT state FROM webhook_states ORDER BY change_id DESC LIMIT 1)""",
        {
            "state": sign.webhooks.state,
            "began_at": to_text(sign.webhooks.since or sign.mark.at),
        },
    )
    put_state(connection, "clock_offset_s", str(sign.clock_offset.total_seconds()))
    _count(connection, sign.mark.at, sign.counted)


def is_new_policy(connection: sqlite3.Connection, policy: Policy) -> bool:
    """Tell whether variants were last judged by another configuration."""
    return get_state(connection, "policy") != _judging(policy)


def forget_policy(connection: sqlite3.Connection) -> None:
    """Keep that variants are judged by more than one configuration."""
    put_state(connection, "policy", "")


def note_policy(connection: sqlite3.Connection, policy: Policy) -> None:
    """Keep by what configuration every variant is judged now."""
    put_state(connection, "policy", _judging(policy))


def _judging(policy: Policy) -> str:
    items = None if policy.has_categories else sorted(policy.items)
    return msgspec.json.encode([sorted(policy.sellable), items]).decode()


def _count(connection: sqlite3.Connection, now: datetime, counted: dict[str, int]) -> None:
    hour = to_text(now.replace(minute=0, second=0, microsecond=0))
    connection.executemany(
        """INSERT INTO counts VALUES (?, ?, ?)
           ON CONFLICT (name, hour) DO UPDATE SET n = n + excluded.n""",
        [(name, hour, n) for name, n in counted.items() if n],
    )
