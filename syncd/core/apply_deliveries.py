"""Applies a batch of deliveries, in the order of their arrival, to what the mirror has stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct, field

from syncd.core.changes import add_change, merge_details, request_refresh
from syncd.core.merge import CONFIRM_SHARE, Decision, Rule, is_replayed, on_delivery
from syncd.core.model import Delivery, Mention, Outcome, VariantDetails, VariantUpdate
from syncd.core.payload import content_key, is_named_by_its_bytes
from syncd.core.policy import Policy
from syncd.core.records import (
    BatchSnapshot,
    ChangeSet,
    DeliveryResult,
    ItemState,
    VariantState,
)


def apply_deliveries(
    snapshot: BatchSnapshot,
    batch: Sequence[Delivery],
    policy: Policy,
    *,
    now: datetime,
    source_now: datetime,
) -> ChangeSet:
    """Return what a batch of authentic deliveries changes, with the result of each.

    `source_now` is the best estimate of Dreamship's clock.
    """
    applying = _Batch(snapshot, policy, now, source_now, ChangeSet())
    stored_keys = set(snapshot.stored_keys)
    for delivery in batch:
        key = (delivery.event_id, content_key(delivery))
        is_copy = key in stored_keys
        stored_keys.add(key)
        outcome: Outcome
        rule: Rule | None = None
        if is_copy and not applying.is_new_event(delivery):
            outcome = "duplicate"
            applying.check_copy(delivery)
        elif delivery.update is None:
            outcome = "quarantined" if delivery.quarantined is not None else "ignored"
        else:
            outcome, rule = applying.apply_update(delivery.update, delivery.arrived_at)
        if delivery.mention is not None:
            applying.apply_mention(delivery.mention, delivery.arrived_at)
        result = DeliveryResult(delivery, key, outcome, rule, is_copy)
        applying.change_set.results.append(result)
    applying.verify_items()
    return applying.change_set


class _Batch(Struct):
    """One batch that is being applied; each delivery applies to the result of those before it."""

    snapshot: BatchSnapshot
    policy: Policy
    now: datetime
    source_now: datetime
    change_set: ChangeSet
    items_to_verify: dict[int, datetime] = field(default_factory=dict)

    def is_new_event(self, delivery: Delivery) -> bool:
        """Return whether equal bytes may be a new event: they have no uuid, and they disagree."""
        if delivery.update is None or not is_named_by_its_bytes(delivery):
            return False
        stored = self._stored(delivery.update.variant_id)
        return stored is None or delivery.update.value not in stored.value_state.candidates

    def check_copy(self, delivery: Delivery) -> None:
        """Request a read if a copy disagrees, without a conflict: most copies are just late.

        But a retry may carry the latest data, and then the mirror is wrong. A copy that is too old
        to be a retry requests nothing: a stored body that is sent again and again would cost a read
        each time.
        """
        update = delivery.update
        if update is not None and is_replayed(update.event_at, self.source_now):
            return
        stored = None if update is None else self._stored(update.variant_id)
        if update is not None and stored is not None and update.value != stored.value_state.value:
            arrived_at = delivery.arrived_at
            self._request_refresh(update, stored.item_id, arrived_at, None)

    def apply_update(
        self, update: VariantUpdate, arrived_at: datetime
    ) -> tuple[Outcome, Rule | None]:
        """Decide about the update of one variant and add what changes."""
        stored = self._stored(update.variant_id)
        item_id = update.item_id if stored is None or stored.item_id is None else stored.item_id
        if self.policy.excludes(item_id):
            return "ignored", None
        if self._is_unplaced(stored, item_id):
            if update.variant_id in self.snapshot.not_in_catalog:
                return "ignored", None
            self.change_set.unplaced_variants.add(update.variant_id)
            return "verifying", None
        item = None if item_id is None else self.snapshot.items.get(item_id)
        decision = on_delivery(
            None if stored is None else stored.value_state,
            value=update.value,
            # A new variant of an item whose statuses are not known yet waits for the read.
            event_at=None if stored is None and self._may_be_blocked(item) else update.event_at,
            arrived_at=arrived_at,
            read_at=None if item is None else item.read_at,
            source_now=self.source_now,
        )
        is_blocked = item is not None and item.is_blocked
        sets_value = stored is None or decision.rule == "newer"
        state = VariantState(
            variant_id=update.variant_id,
            item_id=item_id,
            details=merge_details(stored, update.details),
            value_state=decision.value_state,
            sellable=self.policy.sells(decision.value_state.candidates, is_blocked=is_blocked),
            changed_at=self.now if stored is None or sets_value else stored.changed_at,
            confirmed_at=arrived_at if stored is None or sets_value else stored.confirmed_at,
            source="webhook" if stored is None or sets_value else stored.source,
            rule=decision.rule,
            is_blocked=is_blocked,
        )
        add_change(
            self.change_set,
            stored,
            state,
            cause="webhook",
            occurred_at=update.event_at or arrived_at,
            now=self.now,
        )
        urgent_at = self._urgent_at(stored, decision, arrived_at)
        self._request_refresh(update, item_id, arrived_at, urgent_at)
        for seq, value in self.snapshot.missed.get(update.variant_id, ()):
            if value == update.value:
                self.change_set.explained_misses.add(seq)
        if decision.rule == "same":
            return "unchanged", decision.rule
        return ("verifying" if state.value_state.verifying else "applied"), decision.rule

    def apply_mention(self, mention: Mention, arrived_at: datetime) -> None:
        """Verify the variants that a body names without a value; request reads of changed items.

        Also for copies: if a body was not understood, equal bytes may be a new event.
        """
        for variant_id in mention.variant_ids:
            self._verify_variant(variant_id, mention, arrived_at)
        for item_id in mention.unclear_item_ids:
            if item_id in self.snapshot.items:
                latest = max(arrived_at, self.items_to_verify.get(item_id, arrived_at))
                self.items_to_verify[item_id] = latest
        for item_id in mention.item_ids:
            if item_id in self.snapshot.items and not self.policy.excludes(item_id):
                settle_at = arrived_at + self.policy.settle
                request_refresh(self.change_set, item_id, None, settle_at)

    def verify_items(self) -> None:
        """Verify every variant of the items that may have changed, once for each batch."""
        for item_id, arrived_at in self.items_to_verify.items():
            for variant_id, stored in self.snapshot.variants.items():
                if stored.item_id == item_id and stored.value_state.value is not None:
                    self.apply_update(_unknown_value(variant_id), arrived_at)

    def _verify_variant(self, variant_id: int, mention: Mention, arrived_at: datetime) -> None:
        if self._stored(variant_id) is not None:
            self.apply_update(_unknown_value(variant_id), arrived_at)
            return
        # A variant that the mirror does not have is not sold; a read only has to find its item.
        is_foreign = self.policy.is_restricted and variant_id in self.snapshot.not_in_catalog
        mirrored = [one for one in mention.item_ids if not self.policy.excludes(one)]
        if not mention.is_certain or is_foreign or (mention.item_ids and not mirrored):
            return
        self.change_set.unplaced_variants.add(variant_id)
        for item_id in mirrored:
            if not self._is_unplaced(None, item_id):
                settle_at = arrived_at + self.policy.settle
                request_refresh(self.change_set, item_id, arrived_at, settle_at)

    def _stored(self, variant_id: int) -> VariantState | None:
        added = self.change_set.variants.get(variant_id)
        return added or self.snapshot.variants.get(variant_id)

    def _is_unplaced(self, stored: VariantState | None, item_id: int | None) -> bool:
        """Return whether only a read of the catalogue shows if the variant is mirrored at all."""
        if stored is not None or not self.policy.is_restricted:
            return False
        if self.policy.wanted is not None:
            return item_id not in self.policy.items
        return item_id not in self.snapshot.items and item_id not in self.policy.items

    def _may_be_blocked(self, item: ItemState | None) -> bool:
        """Return whether an item may have a status that forbids to sell its variants."""
        is_unread = item is None or item.confirmed_at is None
        return is_unread and bool(self.policy.blocked_item_statuses)

    def _urgent_at(
        self, stored: VariantState | None, decision: Decision, arrived_at: datetime
    ) -> datetime | None:
        """Return when to read before the settled read: once a read can confirm the delivery."""
        if not decision.read_soon:
            return None
        return arrived_at if stored is None else arrived_at + self.policy.settle / CONFIRM_SHARE

    def _request_refresh(
        self,
        update: VariantUpdate,
        item_id: int | None,
        arrived_at: datetime,
        urgent_at: datetime | None,
    ) -> None:
        settle_at = arrived_at + self.policy.settle
        if item_id is None:
            self.change_set.unplaced_variants.add(update.variant_id)
        else:
            request_refresh(self.change_set, item_id, urgent_at, settle_at)
        if update.item_id is not None and update.item_id != item_id:
            request_refresh(self.change_set, update.item_id, urgent_at, settle_at)


def _unknown_value(variant_id: int) -> VariantUpdate:
    """Return an update without a value: the variant may have changed."""
    return VariantUpdate(
        variant_id, item_id=None, value=None, event_at=None, details=VariantDetails()
    )
