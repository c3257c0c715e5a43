"""The decisions of one read about blocked items, and about items that listings look for."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from syncd.config import Config
from syncd.config.runtime import ActiveConfig
from syncd.config.settings import Availability
from syncd.core.apply_read import apply_read
from syncd.core.merge import ValueState
from syncd.core.model import ItemDetails, ItemRead, SourceVariant, VariantDetails
from syncd.core.policy import Policy
from syncd.core.records import ItemSnapshot, ItemState, VariantState
from syncd.core.removals import reapply_policy
from syncd.daemon.policy_updates import PolicyUpdates
from syncd.errors import MirrorUnavailable
from syncd.store import Database, listings
from syncd.sync.sweeps import SweepManager

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEM, VARIANT = 7, 71
POLICY = Policy(
    frozenset({"in_stock", "limited"}),
    timedelta(seconds=60),
    blocked_item_statuses=frozenset({"paused"}),
)
# A listed variant is still looked for, and item 7 is not known to be needed.
SEARCHING = replace(POLICY, is_listed_only=True, wanted=frozenset({999}))


def stored(value: str | None = "in_stock", *conflicting: str | None) -> VariantState:
    return VariantState(
        variant_id=VARIANT,
        item_id=ITEM,
        details=VariantDetails(),
        value_state=ValueState(value, conflicting),
        sellable=value is not None,
        changed_at=NOW,
        confirmed_at=NOW,
        source="read",
        rule="settled",
    )


def read(*values: str, status: str | None = None) -> ItemRead:
    variants = tuple(SourceVariant(VARIANT, value, VariantDetails()) for value in values)
    later = NOW + timedelta(hours=1)
    details = ItemDetails(release_status=status)
    return ItemRead(ITEM, "Tee", variants, later, later, details=details)


def decided(state: VariantState | None, one: ItemRead, policy: Policy) -> VariantState | None:
    """Return the row of the variant that a read writes; None: it writes none."""
    variants = {} if state is None else {VARIANT: state}
    item = ItemState(ITEM, "Tee", NOW, NOW, was_read=True)
    change_set = apply_read(ItemSnapshot(variants, item), one, policy, now=one.began_at)
    return change_set.variants.get(VARIANT)


def test_an_item_with_variants_is_read_as_usual_while_others_are_looked_for() -> None:
    """Else it would stay on sale, confirmed by a read that says otherwise."""
    after = decided(stored(), read("out_of_stock"), SEARCHING)
    assert after is not None
    assert (after.value_state.value, after.sellable) == ("out_of_stock", False)
    gone = replace(read(), variants=None)
    after = decided(stored(), gone, SEARCHING)
    assert after is not None
    assert after.value_state.value is None
    # An item without variants in the mirror is not needed, unless it has a wanted variant.
    assert decided(None, read("in_stock"), SEARCHING) is None
    assert decided(None, read("in_stock"), replace(SEARCHING, wanted=frozenset({VARIANT})))


def test_a_variant_with_two_values_goes_off_sale_with_its_item() -> None:
    """Also if both values are the same as before."""
    both = stored("in_stock", "limited")
    assert decided(both, read("in_stock", "limited"), POLICY) is None
    after = decided(both, read("in_stock", "limited", status="Paused"), POLICY)
    assert after is not None
    assert not after.sellable


def test_an_excluded_variant_is_no_longer_verified() -> None:
    """No read ends the verification of an item that is not mirrored."""
    policy = replace(POLICY, items=frozenset({ITEM + 1}))
    change_set = reapply_policy(
        [replace(stored(None, "in_stock"), sellable=False)], policy, now=NOW
    )
    assert change_set.variants[VARIANT].value_state == ValueState(None)
    assert not reapply_policy(list(change_set.variants.values()), policy, now=NOW).variants


def test_a_removed_variant_of_a_listing_is_looked_for(memory: sqlite3.Connection) -> None:
    """It may have moved to another item."""
    memory.execute("INSERT INTO skus (sku, variant_id, listed_at) VALUES ('A', 71, '2026')")
    memory.execute(
        """INSERT INTO variants (variant_id, item_id, value, sellable, confirmed_at, changed_at,
               source, rule, decided_at)
           VALUES (71, 7, 'in_stock', 1, '', '', 'read', 'settled', '')"""
    )
    assert listings.wanted(memory, NOW) == frozenset()
    memory.execute("UPDATE variants SET value = NULL, sellable = 0")
    assert listings.wanted(memory, NOW) == {71}
    assert listings.without_item(memory, NOW) == ["A"]
    listings.mark_not_found(memory, ["A"], NOW)
    assert listings.wanted(memory, NOW) == frozenset()


@dataclass
class Sweeps:
    """Counts the sweeps that begin; the first ones fail."""

    failures: int = 0
    begun: list[bool] = field(default_factory=list)

    async def restart(self) -> None:
        if self.failures:
            self.failures -= 1
            raise MirrorUnavailable("disk full")
        self.begun.append(True)


def test_a_policy_that_could_not_be_applied_is_applied_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second reload finds the same policy in force, and the mirror decided by another one."""
    applied: list[Any] = []

    async def reapply(database: Database, policy: Policy, clock: object) -> bool:
        del database, clock
        applied.append(policy)
        if len(applied) == 1:
            raise MirrorUnavailable("disk full")
        return True

    monkeypatch.setattr("syncd.daemon.policy_updates.reapply", reapply)

    async def story() -> list[bool]:
        active, sweeps = ActiveConfig(Config()), Sweeps(failures=1)
        updates = PolicyUpdates(
            Database(tmp_path / "a.db"), active, cast("SweepManager", sweeps), lambda: NOW
        )
        before = active.current.policy
        active.replace(Config(availability=Availability(sellable=("limited",))), None)
        for _ in range(2):  # the disk is full, first for the policy and then for the sweep
            with pytest.raises(MirrorUnavailable):
                await updates.apply(before, restarts=True)
            before = active.current.policy
        await updates.apply(before)
        return sweeps.begun

    assert asyncio.run(story()) == [True]
    assert applied == [applied[0]] * 3
    assert applied[0].sellable == {"limited"}
