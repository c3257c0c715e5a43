"""Adds rows of variants, changes and requests to read to a change set."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from msgspec.structs import replace

from syncd.core.model import Cause, ItemDetails, VariantDetails
from syncd.core.records import Change, ChangeSet, ItemState, RefreshRequest, VariantState

D = TypeVar("D", VariantDetails, ItemDetails)


def add_change(
    change_set: ChangeSet,
    stored: VariantState | None,
    state: VariantState,
    *,
    cause: Cause,
    occurred_at: datetime,
    now: datetime,
    missed: bool = False,
    during_downtime: bool = False,
) -> None:
    """Add the new row of a variant, and a change if the feed shows a difference."""
    change_set.variants[state.variant_id] = state
    if stored is not None and stored.item_id != state.item_id:
        change_set.moved_variants.add(state.variant_id)
    old = None if stored is None else stored.value_state.value
    old_sellable = stored is not None and stored.sellable
    if stored is not None and (old, old_sellable) == (state.value_state.value, state.sellable):
        return
    if stored is None and state.value_state.value is None:
        return  # removed before it was ever stored: readers of the feed never had it
    change_set.changes.append(
        Change(
            variant_id=state.variant_id,
            item_id=state.item_id,
            old_availability=old,
            availability=state.value_state.value,
            old_sellable=old_sellable,
            sellable=state.sellable,
            cause=cause,
            rule=state.rule,
            missed=missed,
            occurred_at=occurred_at,
            recorded_at=now,
            during_downtime=during_downtime,
        )
    )


def request_refresh(
    change_set: ChangeSet,
    item_id: int,
    urgent_at: datetime | None,
    settle_at: datetime,
) -> None:
    """Request a read of an item; several requests for one item become one."""
    final_at = settle_at
    other = change_set.refresh_requests.get(item_id)
    if other is not None:
        urgent_at = other.urgent_at if urgent_at is None else urgent_at
        final_at = max(other.final_at, settle_at)
        settle_at = min(other.settle_at, settle_at)
    change_set.refresh_requests[item_id] = RefreshRequest(item_id, urgent_at, settle_at, final_at)


def merge_details(stored: VariantState | None, details: VariantDetails) -> VariantDetails:
    """Return the newer details; an old one stays where the newer observation has none."""
    return details if stored is None else _filled(details, stored.details)


def merge_item_details(stored: ItemState | None, details: ItemDetails) -> ItemDetails:
    """Return the newer details; an old one stays where the newer observation has none."""
    return details if stored is None else _filled(details, stored.details)


def _filled(newer: D, older: D) -> D:
    missing = {
        name: getattr(older, name)
        for name in newer.__struct_fields__
        if getattr(newer, name) is None and getattr(older, name) is not None
    }
    return replace(newer, **missing) if missing else newer
