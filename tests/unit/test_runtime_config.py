"""The configuration in force: replaced as a whole, and read once by each transaction."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from syncd.clock import SteadyClock
from syncd.config import Config
from syncd.config.runtime import ActiveConfig, RuntimeConfig
from syncd.config.settings import Availability, Catalog, Reconcile
from syncd.config.types import Secret
from syncd.core.payload import parse
from syncd.dreamship.remote_clock import RemoteClock
from syncd.store import Database
from syncd.webhook.batch_writer import BatchWriter

BEFORE = Config(keys=(Secret("first-key"),))
AFTER = Config(
    availability=Availability(sellable=("low_stock",)),
    catalog=Catalog(items=(77,)),
    reconcile=Reconcile(missed_grace=timedelta(hours=1)),
    keys=(Secret("second-key"),),
)


def test_a_reload_replaces_every_value_at_once() -> None:
    """A caller that has read the old value still has all of it."""
    active = ActiveConfig(BEFORE)
    before = active.current
    active.replace(AFTER, None)
    after = active.current
    assert "in_stock" in before.policy.sellable
    assert (before.items, before.keys) == ((), ("first-key",))
    assert after.policy.sellable == {"low_stock"}
    assert (after.items, after.policy.items, after.keys) == (
        (77,),
        frozenset({77}),
        ("second-key",),
    )
    assert after.missed_grace == timedelta(hours=1)


def test_the_value_is_frozen_and_shows_no_key() -> None:
    """A traceback with the value in it must not have a key in it."""
    current = ActiveConfig(BEFORE).current
    assert "first-key" not in repr(current)
    with pytest.raises(AttributeError):
        current.policy = current.policy  # type: ignore[misc]


def test_a_transaction_uses_one_configuration() -> None:
    """A reload after the begin of a batch changes neither its policy nor its grace."""
    active = ActiveConfig(BEFORE)
    found: list[tuple[Any, Any]] = []

    class Reloaded(Database):
        async def write_blocking_loop(self, function: Any) -> Any:
            active.replace(AFTER, None)
            return function(None)

    def apply(db: Any, batch: Any, policy: Any, **values: Any) -> list[Any]:
        del db, batch
        found.append((policy, values["missed_grace"]))
        return []

    async def submit() -> None:
        clock = SteadyClock()
        database = Reloaded(Path("not-used.db"))
        writer = BatchWriter(database, clock, RemoteClock(clock), active)
        await writer._commit([parse(b"{}", datetime.now(UTC))])

    with mock.patch("syncd.webhook.batch_writer.deliveries.apply", apply):
        asyncio.run(submit())
    before = RuntimeConfig(BEFORE, ActiveConfig(BEFORE).current.policy, ())
    assert found == [(before.policy, before.missed_grace)]
