"""Rules that are broken on purpose, to show that the simulation detects it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from msgspec.structs import replace

from syncd.core import apply_read, changes, merge
from syncd.core.merge import Decision, ValueState
from syncd.core.model import ItemRead
from syncd.core.records import ChangeSet, ItemSnapshot
from syncd.dreamship.remote_clock import RemoteClock

Patches = Callable[[], list[Any]]


def _no_confirming_read() -> list[Any]:
    def request_refresh(
        writes: ChangeSet, item_id: int, urgent_at: datetime | None, settle_at: datetime
    ) -> None:
        del settle_at
        if urgent_at is not None:
            changes.request_refresh(writes, item_id, urgent_at, urgent_at)

    return [
        mock.patch(f"syncd.core.{module}.request_refresh", request_refresh)
        for module in ("apply_deliveries", "apply_read")
    ]


def _unsettled_wins() -> list[Any]:
    def on_read(stored: ValueState | None, **how: Any) -> Decision:
        return merge.on_read(stored, **{**how, "settle": -timedelta(days=1000)})

    return [mock.patch("syncd.core.apply_read.on_read", on_read)]


def _ties_applied() -> list[Any]:
    def is_after(moment: datetime, other: datetime | None) -> bool:
        return other is None or moment >= other

    return [mock.patch("syncd.core.merge._is_after", is_after)]


def _older_discarded() -> list[Any]:
    def on_delivery(stored: ValueState | None, **how: Any) -> Decision:
        decision = merge.on_delivery(stored, **how)
        if stored is None or decision.rule != "contradicts":
            return decision
        unchanged = replace(decision.value_state, conflicting_values=stored.conflicting_values)
        return replace(decision, value_state=unchanged, rule="same", read_soon=False)

    return [mock.patch("syncd.core.apply_deliveries.on_delivery", on_delivery)]


def _copies_believed() -> list[Any]:
    def placed(clock: RemoteClock, answer: ItemRead, resource: object) -> ItemRead:
        del clock, resource
        return replace(answer, age=timedelta(), source_at=None)

    return [mock.patch("syncd.dreamship.remote_clock.RemoteClock.placed", placed)]


def _waits_do_not_follow() -> list[Any]:
    return [mock.patch("syncd.clock.Jump.timer", lambda _, moment: moment)]


def _garbled_ignored() -> list[Any]:
    return [mock.patch("syncd.core.payload.mention_in", return_value=None)]


def _partial_taken_for_whole() -> list[Any]:
    def read(stored: ItemSnapshot, item_read: ItemRead, *given: Any, **how: Any) -> ChangeSet:
        return apply_read.apply_read(stored, replace(item_read, is_whole=True), *given, **how)

    return [mock.patch("syncd.store.reads.apply_read", read)]


BREAKS: dict[str, Patches] = {
    "no-confirming-read": _no_confirming_read,
    "unsettled-read-wins": _unsettled_wins,
    "ties-applied": _ties_applied,
    "older-discarded": _older_discarded,
    "copies-believed": _copies_believed,
    "waits-do-not-follow": _waits_do_not_follow,
    "garbled-ignored": _garbled_ignored,
    "partial-taken-for-whole": _partial_taken_for_whole,
}


@contextlib.contextmanager
def broken(name: str | None) -> Iterator[None]:
    """Break one rule for a while."""
    with contextlib.ExitStack() as stack:
        for patch in BREAKS[name]() if name else ():
            stack.enter_context(patch)
        yield
