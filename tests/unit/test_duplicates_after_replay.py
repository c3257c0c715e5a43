"""A copy of a delivery is recognised, also after the row of the original has changed."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from msgspec import json
from msgspec.structs import replace

from syncd.core.model import Delivery
from syncd.core.payload import parse
from syncd.core.policy import Policy
from syncd.store import deliveries, replay

NOW = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
GRACE = timedelta(minutes=10)
POLICY = Policy(sellable=frozenset(), settle=timedelta(seconds=60))


def delivery(second: int) -> Delivery:
    """Return one of several bodies of one event with the same content."""
    event = {
        "uuid": "u",
        "action": "item-variant-availability-updated",
        "timestamp": f"2026-03-01T12:00:{second:02}Z",
    }
    data = {"id": 5, "item": 7, "availability": "in_stock"}
    return parse(
        json.encode({"id": 5, "object": "item_variant", "event": event, "data": data}), NOW
    )


def odd(one: Delivery) -> Delivery:
    """Return a quarantined delivery."""
    return replace(one, action=None, update=None, quarantined="it could not be written")


def test_a_copy_is_a_duplicate_after_two_replays(memory: sqlite3.Connection) -> None:
    """Between them, the row that had taken its key was pruned."""

    def take(*batch: Delivery) -> list[str]:
        results = deliveries.apply(
            memory, batch, POLICY, now=NOW, source_now=NOW, missed_grace=GRACE
        )
        return [one.outcome for one in results]

    def again() -> list[str | None]:
        ids = replay.quarantined(memory)
        done = replay.apply(memory, ids, POLICY, now=NOW, source_now=NOW, missed_grace=GRACE)
        return [one.outcome for one in done]

    first, late = delivery(1), delivery(0)
    assert take(first) == ["applied"]
    assert take(odd(late)) == ["quarantined"]
    assert again() == ["unchanged"]
    assert take(odd(late)) == ["quarantined"]
    memory.execute("DELETE FROM deliveries WHERE delivery_id = 1")
    assert again() == ["unchanged"]
    assert take(late, odd(delivery(2))) == ["duplicate", "quarantined"]
    assert take(late) == ["duplicate"]
