"""Removals: variants that reads do not find, and variants that the configuration excludes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from syncd.core.changes import add_change
from syncd.core.merge import Rule, on_read, without_conflict
from syncd.core.model import ItemRead
from syncd.core.policy import Policy
from syncd.core.records import ChangeSet, ItemSnapshot, VariantState

# The time within which removals count together (syncd/docs/reconciling.md, rule 6).
REMOVAL_WINDOW = timedelta(days=1)
# So many variants may be removed within it, unless they are more than half of the mirror.
FEW_REMOVALS = 50


def exceed_limit(removals: int, mirrored: int, policy: Policy) -> bool:
    """Return whether so many removals of `mirrored` variants need an operator who accepts them."""
    is_few = removals <= FEW_REMOVALS and removals * 2 <= mirrored
    return not is_few and removals * 100 > policy.removal_limit_percent * mirrored


def count_missing(stored: Mapping[int, VariantState], read: ItemRead) -> int:
    """Return how many variants of the item, among those not removed, a read does not have."""
    found = {variant.variant_id for variant in read.variants or ()}
    return sum(
        variant_id not in found
        and state.item_id == read.item_id
        and state.value_state.value is not None
        for variant_id, state in stored.items()
    )


def shows_every_variant(snapshot: ItemSnapshot, read: ItemRead) -> bool:
    """Return whether a read shows every variant of its item."""
    was_read = snapshot.item is not None and snapshot.item.was_read
    return read.is_whole and (
        not read.is_row or row_shows_every_variant(snapshot.variants, read, was_read=was_read)
    )


def row_shows_every_variant(
    stored: Mapping[int, VariantState], row: ItemRead, *, was_read: bool
) -> bool:
    """Return whether a row of a list is as good as a read of its item.

    A row may lack variants without any sign of it. So it must show every variant that the item had
    when the item itself was read.
    """
    return row.is_whole and was_read and not count_missing(stored, row)


def remove_missing(missing: Iterable[VariantState], policy: Policy, *, now: datetime) -> ChangeSet:
    """Remove the variants that the settled reads of a sweep did not find.

    A variant with a newer delivery waits for the read that settles the delivery.
    """
    change_set = ChangeSet()
    for state in missing:
        if state.missing_since is not None:
            _remove(change_set, state, state.missing_since, "gone", policy, now=now)
    return change_set


def restore_unconfirmed(
    missing: Iterable[VariantState], policy: Policy, *, now: datetime
) -> ChangeSet:
    """Restore the variants that a sweep did not find, because too many are missing at once."""
    change_set = ChangeSet()
    for state in missing:
        value_state = without_conflict(state.value_state, None)
        if value_state == state.value_state:
            continue
        sellable = policy.sells(value_state.candidates, is_blocked=state.is_blocked)
        restored = replace(state, value_state=value_state, sellable=sellable, rule="brake")
        add_change(change_set, state, restored, cause="read", occurred_at=now, now=now)
    return change_set


def remove_unplaced(
    stored: Mapping[int, VariantState], began_at: datetime, policy: Policy, *, now: datetime
) -> ChangeSet:
    """Remove variants without an item that a whole sweep, begun at `began_at`, did not find.

    A variant with a delivery since then (or shortly before) waits for the next sweep.
    """
    change_set = ChangeSet()
    for state in stored.values():
        _remove(change_set, state, began_at, "not-found", policy, now=now)
    return change_set


def reapply_policy(states: Sequence[VariantState], policy: Policy, *, now: datetime) -> ChangeSet:
    """Decide again what is sellable and what is mirrored, after the configuration changed."""
    change_set = ChangeSet()
    for stored in states:
        state = stored
        known = stored.value_state
        if policy.excludes(stored.item_id) and (known.value is not None or known.verifying):
            # No delivery and no read updates it any more, so it must not stay on sale.
            value_state = replace(stored.value_state, value=None, conflicting_values=())
            state = replace(state, value_state=value_state, changed_at=now)
        sellable = policy.sells(state.value_state.candidates, is_blocked=state.is_blocked)
        state = replace(state, sellable=sellable)
        if state != stored:
            state = replace(state, rule="policy")
            add_change(change_set, stored, state, cause="config", occurred_at=now, now=now)
    return change_set


def _remove(
    change_set: ChangeSet,
    state: VariantState,
    began_at: datetime,
    rule: Rule,
    policy: Policy,
    *,
    now: datetime,
) -> None:
    decision = on_read(
        state.value_state, value=None, began_at=began_at, source_at=None, settle=policy.settle
    )
    if decision.rule != "settled" or state.value_state == decision.value_state:
        return
    removed = replace(
        state,
        value_state=decision.value_state,
        sellable=False,
        changed_at=now,
        confirmed_at=began_at,
        source="read",
        rule=rule,
        missing_since=None,
    )
    add_change(change_set, state, removed, cause="read", occurred_at=began_at, now=now)
