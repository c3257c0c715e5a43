"""What a sweep did not find, weighed at its end, and what a changed configuration leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from syncd.core.changes import add_change
from syncd.core.merge import Rule, on_read
from syncd.core.model import ItemRead
from syncd.core.policy import Policy
from syncd.core.records import ChangeSet, ItemSnapshot, VariantState


def count_missing(known: Mapping[int, VariantState], seen: ItemRead) -> int:
    """Return how many variants of the item a read does not name, of those that are not removed."""
    named = {variant.variant_id for variant in seen.variants or ()}
    return sum(
        variant_id not in named
        and state.item_id == seen.item_id
        and state.value_state.value is not None
        for variant_id, state in known.items()
    )


def is_whole(known: ItemSnapshot, seen: ItemRead) -> bool:
    """Tell whether a read shows every variant of its item."""
    was_read = known.item is not None and known.item.was_read
    return seen.is_whole and (
        not seen.is_row or is_whole_row(known.variants, seen, was_read=was_read)
    )


def is_whole_row(known: Mapping[int, VariantState], seen: ItemRead, *, was_read: bool) -> bool:
    """Tell whether a row of a list is as good as a read of its item.

    A row may lack variants without a trace. So it has to show all that the item had when it was
    read by itself.
    """
    return seen.is_whole and was_read and not count_missing(known, seen)


def remove_missing(absent: Iterable[VariantState], policy: Policy, *, now: datetime) -> ChangeSet:
    """Remove what a sweep's settled reads did not find.

    A variant of which a delivery came since waits for the read that settles it.
    """
    writes = ChangeSet()
    for state in absent:
        if state.absent_at is not None:
            _take_away(writes, state, state.absent_at, "gone", policy, now=now)
    return writes


def restore_unconfirmed(
    absent: Iterable[VariantState], policy: Policy, *, now: datetime
) -> ChangeSet:
    """Take back the doubt about what a sweep did not find: it is too much to be believed."""
    writes = ChangeSet()
    for state in absent:
        value_state = state.value_state
        value_state = replace(
            value_state, doubts=tuple(doubt for doubt in value_state.doubts if doubt is not None)
        )
        if value_state == state.value_state:
            continue
        sellable = policy.sells(value_state.candidates)
        lifted = replace(state, value_state=value_state, sellable=sellable, rule="brake")
        add_change(writes, state, lifted, cause="read", occurred_at=now, now=now)
    return writes


def remove_unplaced(
    known: dict[int, VariantState], began_at: datetime, policy: Policy, *, now: datetime
) -> ChangeSet:
    """Judge variants of no known item after a whole sweep, begun at `began_at`, did not find them.

    What was delivered since then (or shortly before) waits for the next sweep.
    """
    writes = ChangeSet()
    for state in known.values():
        _take_away(writes, state, began_at, "not-found", policy, now=now)
    return writes


def reapply_policy(states: Sequence[VariantState], policy: Policy, *, now: datetime) -> ChangeSet:
    """Judge again what is sellable and what is mirrored, after the configuration changed."""
    writes = ChangeSet()
    for known in states:
        state = known
        if policy.excludes(known.item_id) and known.value_state.value is not None:
            # Nobody will tell about it any more: it must not stay on sale.
            state = replace(
                state, value_state=replace(known.value_state, value=None, doubts=()), changed_at=now
            )
        state = replace(state, sellable=policy.sells(state.value_state.candidates))
        if state != known:
            state = replace(state, rule="policy")
            add_change(writes, known, state, cause="config", occurred_at=now, now=now)
    return writes


def _take_away(
    writes: ChangeSet,
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
    gone = replace(
        state,
        value_state=decision.value_state,
        sellable=False,
        changed_at=now,
        confirmed_at=began_at,
        source="read",
        rule=rule,
        absent_at=None,
    )
    add_change(writes, state, gone, cause="read", occurred_at=began_at, now=now)
