"""The state of catching up, with its inputs: missed changes, and items read before them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import datetime, timedelta

from syncd.core.catch_up import CatchUp
from syncd.core.timestamps import from_text, maybe_from_text, maybe_text, to_text
from syncd.store.job_queue import READABLE
from syncd.store.rows import as_json, get_state, put_state
from syncd.store.views import LAST_DELIVERY_AT

LATE_AT = "late_delivery_at"
_EVIDENCE_AT = "catch_up_evidence_at"
_ENDED_AT = "catch_up_ended_at"
_CREDIT_AT = "catch_up_credit_at"
_CREDIT = "catch_up_credit"
_FULL_RATE = "catch_up_full_rate"
# Times of this host's clock, which move with it.
TIME_KEYS = (LATE_AT, _EVIDENCE_AT, _ENDED_AT, _CREDIT_AT)


def load(db: sqlite3.Connection) -> CatchUp:
    """Return the stored state."""
    return CatchUp(
        evidence_at=maybe_from_text(get_state(db, _EVIDENCE_AT) or None),
        is_at_full_rate=get_state(db, _FULL_RATE) == "1",
        ended_at=maybe_from_text(get_state(db, _ENDED_AT) or None),
        credit=float(get_state(db, _CREDIT) or 0),
        credit_at=maybe_from_text(get_state(db, _CREDIT_AT) or None),
    )


def save(db: sqlite3.Connection, state: CatchUp) -> None:
    """Store the state."""
    put_state(db, _EVIDENCE_AT, maybe_text(state.evidence_at) or "")
    put_state(db, _FULL_RATE, "1" if state.is_at_full_rate else "")
    put_state(db, _ENDED_AT, maybe_text(state.ended_at) or "")
    put_state(db, _CREDIT, f"{state.credit:.3f}")
    put_state(db, _CREDIT_AT, maybe_text(state.credit_at) or "")


def late_at(db: sqlite3.Connection) -> datetime | None:
    """Return when a delivery last arrived late."""
    return maybe_from_text(get_state(db, LATE_AT))


def note_late(
    db: sqlite3.Connection, seqs: Collection[int], now: datetime, settle: timedelta
) -> None:
    """Store that a delivery arrived late, if reads found one of these changes `settle` before."""
    (found_at,) = db.execute(
        "SELECT min(recorded_at) FROM change_log WHERE seq IN (SELECT value FROM json_each(?))",
        (as_json(seqs),),
    ).fetchone()
    if found_at is not None and now - from_text(found_at) > settle:
        put_state(db, LATE_AT, to_text(now))


def newest_missed(
    db: sqlite3.Connection, since: datetime | None, until: datetime
) -> datetime | None:
    """Return when the last change until `until` was found that no delivery has reported.

    A change while the daemon could receive no deliveries does not count.
    """
    (found,) = db.execute(
        """SELECT max(recorded_at) FROM change_log
           WHERE missed = 1 AND during_downtime = 0 AND recorded_at > ? AND recorded_at <= ?""",
        (maybe_text(since) or "", to_text(until)),
    ).fetchone()
    return maybe_from_text(found)


def last_delivery_at(db: sqlite3.Connection) -> datetime | None:
    """Return when the last authentic delivery arrived."""
    return maybe_from_text(db.execute(LAST_DELIVERY_AT).fetchone()[0])


def count_outdated(
    db: sqlite3.Connection, before: datetime, only: Collection[int] | None = None
) -> int:
    """Return how many items were read before a moment, and not since; without broken ones."""
    (count,) = db.execute(
        f"""SELECT count(*) FROM items i
            WHERE i.confirmed_at < :before AND {READABLE}""",  # noqa: S608 - a constant
        {"before": to_text(before), "only": None if only is None else as_json(only)},
    ).fetchone()
    return int(count)
