"""Applies a finished read of one item to what the mirror has stored of it."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.changes import (
    add_change,
    merge_details,
    merge_item_details,
    request_refresh,
)
from syncd.core.merge import Decision, ValueState, on_read, with_conflict
from syncd.core.model import ItemDetails, ItemRead, SourceVariant, VariantDetails
from syncd.core.policy import Policy
from syncd.core.read_age import COPY_AGE, NO_EVIDENCE_AGE
from syncd.core.records import ChangeSet, ItemSnapshot, VariantState
from syncd.core.removals import count_missing, shows_every_variant

# How many times `settle` passes before an item is read again after a partial answer.
PARTIAL_WAIT = 10


def apply_read(
    snapshot: ItemSnapshot,
    read: ItemRead,
    policy: Policy,
    *,
    now: datetime,
    accepting_since: datetime | None = None,
) -> ChangeSet:
    """Return what a finished read of one item changes.

    A read that began before the last stored read is overtaken: its content may be older. Where it
    disagrees, the item is read again. `accepting_since`: since when deliveries could arrive without
    a break. A change that may be older is no missed delivery.
    """
    found = {variant.variant_id: variant for variant in read.variants or ()}
    # While items are looked for, those that have variants in the mirror are read as usual.
    mirrored = {
        variant_id
        for variant_id, state in snapshot.variants.items()
        if state.item_id == read.item_id and state.value_state.value is not None
    }
    if policy.excludes_read(read.item_id, found, mirrored):
        return ChangeSet()  # the configuration or the listings do not name the item
    applying = _Read(snapshot, read, policy, now, accepting_since, ChangeSet())
    applying.is_whole = shows_every_variant(snapshot, read)
    applying.is_blocked = policy.blocks(item_details(snapshot, read))
    values: dict[int, tuple[str, ...]] = {}
    for one in read.variants or ():
        values[one.variant_id] = (*values.get(one.variant_id, ()), one.value)
    overtaken = _is_overtaken(snapshot, read)
    for variant_id in [*found, *(v for v in snapshot.variants if v not in found)]:
        stored, variant = snapshot.variants.get(variant_id), found.get(variant_id)
        if variant is None and stored is not None and stored.item_id != read.item_id:
            continue  # it has moved to another item, whose read decides about it
        if variant is None and stored is not None and not applying.is_whole:
            applying.leave_unshown(stored)
        elif overtaken:
            applying.check_overtaken(stored, variant)
        elif variant is not None and len(set(values[variant_id])) > 1:
            applying.add_ambiguous(stored, variant, values[variant_id])
        elif stored is None:
            applying.add_variant(variant)
        else:
            applying.decide(stored, variant)
    if applying.settles_at is not None:
        # The deliveries requested a settled read already, but `settle` may be longer since then.
        request_refresh(applying.change_set, read.item_id, None, applying.settles_at)
    return applying.change_set


def item_details(snapshot: ItemSnapshot, read: ItemRead) -> ItemDetails:
    """Return the details of the item after a read; an overtaken read does not change them."""
    item = snapshot.item
    if item is not None and _is_overtaken(snapshot, read):
        return item.details
    return merge_item_details(item, read.details)


def _is_overtaken(snapshot: ItemSnapshot, read: ItemRead) -> bool:
    """Return whether a later read is stored, or the content of this one may be older."""
    last = None if snapshot.item is None else snapshot.item.confirmed_at
    return (last is not None and read.began_at < last) or is_no_evidence(snapshot, read)


def is_no_evidence(snapshot: ItemSnapshot, read: ItemRead) -> bool:
    """Return whether a copy from a cache is no evidence, so that the item must be read again.

    That is so if the age of the copy is unknown, and if the copy lacks a variant: only an answer of
    Dreamship itself proves that a variant does not exist.
    """
    if read.age < COPY_AGE:
        return False
    if read.variants is None or read.age >= NO_EVIDENCE_AGE:
        return True
    return count_missing(snapshot.variants, read) > 0


class _Read(Struct):
    """One finished read that is being applied, variant by variant."""

    snapshot: ItemSnapshot
    read: ItemRead
    policy: Policy
    now: datetime
    accepting_since: datetime | None
    change_set: ChangeSet
    is_whole: bool = True
    is_blocked: bool = False
    settles_at: datetime | None = None

    def check_overtaken(self, stored: VariantState | None, variant: SourceVariant | None) -> None:
        """Request a read if an overtaken read disagrees with the mirror."""
        value = None if variant is None else variant.value
        if stored is None or stored.value_state.value != value or stored.value_state.verifying:
            request_refresh(self.change_set, self.read.item_id, self.now, self.now)

    def leave_unshown(self, stored: VariantState) -> None:
        """Leave a variant that a partial answer does not show, and request another read.

        Each answer may be partial, so this waits longer than a delivery does.
        """
        if stored.is_blocked != self.is_blocked:
            sellable = self._sells(stored.value_state)
            state = replace(stored, sellable=sellable, is_blocked=self.is_blocked)
            self._add_change(stored, state)
        delivered_at = stored.value_state.delivered_at
        is_unconfirmed = (
            delivered_at is not None and stored.confirmed_at < delivered_at + self.policy.settle
        )
        if stored.value_state.verifying or is_unconfirmed:
            again_at = self.now + self.policy.settle * PARTIAL_WAIT
            request_refresh(self.change_set, self.read.item_id, None, again_at)

    def add_ambiguous(
        self, stored: VariantState | None, variant: SourceVariant, values: tuple[str, ...]
    ) -> None:
        """Add all values of a variant if one answer has several; read again if one is new."""
        if stored is None:
            self.add_variant(variant)
            stored = self.change_set.variants[variant.variant_id]
        value_state = stored.value_state
        for value in values:
            if value != value_state.value:
                value_state = with_conflict(value_state, value)
        state = replace(
            stored,
            item_id=self.read.item_id,
            value_state=value_state,
            sellable=self._sells(value_state),
            is_blocked=self.is_blocked,
        )
        if state == stored:
            return
        self._add_change(stored, replace(state, rule="ambiguous"))
        if value_state == stored.value_state:
            return
        settle_at = self.now + self.policy.settle
        request_refresh(self.change_set, self.read.item_id, None, settle_at)

    def add_variant(self, variant: SourceVariant | None) -> None:
        """Add a variant that the mirror does not have."""
        if variant is None:
            return
        value_state = self._decision(None, variant).value_state
        delivered_at = self.snapshot.unplaced_deliveries.get(variant.variant_id)
        if delivered_at is not None and not self._is_settled(delivered_at):
            # A delivery arrived while its item was unknown, and this read may be older.
            value_state = replace(with_conflict(value_state, None), delivered_at=delivered_at)
        state = VariantState(
            variant_id=variant.variant_id,
            item_id=self.read.item_id,
            details=variant.details,
            value_state=value_state,
            sellable=self._sells(value_state),
            changed_at=self.now,
            confirmed_at=self.read.began_at,
            source="read",
            rule="not-settled" if value_state.verifying else "settled",
            is_blocked=self.is_blocked,
        )
        self._add_change(None, state)

    def decide(self, stored: VariantState, variant: SourceVariant | None) -> None:
        """Add the changes of a variant that the mirror has; most reads change nothing."""
        read = self.read
        decision = self._decision(stored, variant)
        if stored.value_state.delivered_at is not None:
            self._is_settled(stored.value_state.delivered_at)
        is_missing = (
            variant is None and decision.rule == "settled" and stored.value_state.value is not None
        )
        if is_missing and self.snapshot.absence_mode != "remove":
            self._add_missing(stored)
            return
        value_state = decision.value_state
        is_changed = value_state.value != stored.value_state.value
        state = VariantState(
            variant_id=stored.variant_id,
            item_id=read.item_id,
            details=merge_details(stored, VariantDetails() if variant is None else variant.details),
            value_state=value_state,
            sellable=self._sells(value_state),
            changed_at=self.now if is_changed else stored.changed_at,
            confirmed_at=stored.confirmed_at if decision.rule == "not-settled" else read.began_at,
            source="read" if is_changed else stored.source,
            rule=decision.rule,
            is_blocked=self.is_blocked,
        )
        # The row of the item says when it was read: an unchanged variant costs no write.
        unchanged = replace(
            stored,
            value_state=replace(stored.value_state, read_at=value_state.read_at),
            confirmed_at=read.began_at,
            rule=state.rule,
        )
        if state != unchanged or not self.is_whole:
            self._add_change(stored, state, missed=decision.missed)

    def _is_settled(self, delivered_at: datetime) -> bool:
        """Return whether this read is settled for a delivery; if not, remember when a read is."""
        settles_at = delivered_at + self.policy.settle
        if self.read.began_at >= settles_at:
            return True
        if self.settles_at is None or settles_at > self.settles_at:
            self.settles_at = settles_at
        return False

    def _decision(self, stored: VariantState | None, variant: SourceVariant | None) -> Decision:
        return on_read(
            None if stored is None else stored.value_state,
            value=None if variant is None else variant.value,
            began_at=self.read.began_at,
            source_at=self.read.source_at,
            settle=self.policy.settle,
        )

    def _sells(self, value_state: ValueState) -> bool:
        return self.policy.sells(value_state.candidates, is_blocked=self.is_blocked)

    def _add_missing(self, stored: VariantState) -> None:
        """Take a missing variant off sale until the sweep ends, unless too many are missing."""
        value_state = stored.value_state
        # A variant that an earlier sweep missed and restored is not marked again by each sweep.
        was_restored = (
            stored.missing_since is not None and None not in value_state.conflicting_values
        )
        if self.snapshot.absence_mode == "mark" and not was_restored:
            value_state = with_conflict(value_state, None)
        state = replace(
            stored,
            value_state=value_state,
            sellable=self._sells(value_state),
            rule="absent",
            missing_since=self.read.began_at,
            is_blocked=self.is_blocked,
        )
        self._add_change(stored, state)

    def _add_change(
        self, stored: VariantState | None, state: VariantState, *, missed: bool = False
    ) -> None:
        add_change(
            self.change_set,
            stored,
            state,
            cause="read",
            occurred_at=self.read.began_at,
            now=self.now,
            missed=missed,
            during_downtime=missed and self._may_have_changed_during_downtime(stored),
        )

    def _may_have_changed_during_downtime(self, stored: VariantState | None) -> bool:
        return stored is not None and (
            self.accepting_since is not None and stored.confirmed_at < self.accepting_since
        )
