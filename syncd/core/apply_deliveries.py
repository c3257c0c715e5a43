"""A batch of deliveries, judged in the order of their arrival."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct, field

from syncd.core.changes import add_change, merge_labels, request_refresh
from syncd.core.merge import WITNESS_SHARE, Decision, Rule, is_replayed, on_delivery
from syncd.core.model import Delivery, Labels, Mention, Outcome, VariantUpdate
from syncd.core.payload import dedupe_key, is_named_by_its_bytes
from syncd.core.policy import Policy
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult, VariantState


def apply_deliveries(
    snapshot: BatchSnapshot,
    batch: Sequence[Delivery],
    policy: Policy,
    *,
    now: datetime,
    source_now: datetime,
) -> ChangeSet:
    """Judge a batch of authentic deliveries in the order of their arrival.

    `source_now` is Dreamship's clock as well as it is known here.
    """
    hearing = _Hearing(snapshot, policy, now, source_now, ChangeSet())
    seen = set(snapshot.seen)
    for delivery in batch:
        key = (delivery.event_id, dedupe_key(delivery))
        is_copy = key in seen
        seen.add(key)
        outcome: Outcome
        rule: Rule | None = None
        if is_copy and not hearing.is_news(delivery):
            outcome = "duplicate"
            hearing.note_copy(delivery)
        elif delivery.claim is None:
            outcome = "quarantined" if delivery.quarantined is not None else "ignored"
        else:
            outcome, rule = hearing.apply_update(delivery.claim, delivery.arrived_at)
        if delivery.mention is not None:
            hearing.note_mention(delivery.mention, delivery.arrived_at)
        hearing.writes.judged.append(DeliveryResult(delivery, key, outcome, rule, is_copy))
    hearing.doubt_items()
    return hearing.writes


class _Hearing(Struct):
    """One batch of deliveries being judged; what is written by one is known to the next."""

    snapshot: BatchSnapshot
    policy: Policy
    now: datetime
    source_now: datetime
    writes: ChangeSet
    doubted_items: dict[int, datetime] = field(default_factory=dict)

    def is_news(self, delivery: Delivery) -> bool:
        """Tell whether equal bytes may be a new event: no uuid tells them apart, they disagree."""
        if delivery.claim is None or not is_named_by_its_bytes(delivery):
            return False
        known = self._known(delivery.claim.variant_id)
        return known is None or delivery.claim.value not in known.value_state.candidates

    def note_copy(self, delivery: Delivery) -> None:
        """Have a copy that disagrees settled by a read, without a doubt: mostly it is just late.

        A retry may carry the latest data though, and then the mirror may be what is wrong. What is
        sent again after the sender's last try asks nothing, or one body kept would cost a read
        each time.
        """
        claim = delivery.claim
        if claim is not None and is_replayed(claim.event_at, self.source_now):
            return
        known = None if claim is None else self._known(claim.variant_id)
        if claim is not None and known is not None and claim.value != known.value_state.value:
            self._ask(claim, known.item_id, delivery.arrived_at, None)

    def apply_update(
        self, claim: VariantUpdate, arrived_at: datetime
    ) -> tuple[Outcome, Rule | None]:
        """Judge one claim and note what it writes."""
        known = self._known(claim.variant_id)
        item_id = claim.item_id if known is None or known.item_id is None else known.item_id
        if self.policy.excludes(item_id):
            return "ignored", None
        if self._is_unplaced(known, item_id):
            if claim.variant_id in self.snapshot.foreign:
                return "ignored", None
            self.writes.unlocated.add(claim.variant_id)
            return "verifying", None
        item = None if item_id is None else self.snapshot.items.get(item_id)
        decision = on_delivery(
            None if known is None else known.value_state,
            value=claim.value,
            event_at=claim.event_at,
            arrived_at=arrived_at,
            read_at=None if item is None else item.read_at,
            source_now=self.source_now,
        )
        sets_value = known is None or decision.rule == "newer"
        state = VariantState(
            variant_id=claim.variant_id,
            item_id=item_id,
            labels=merge_labels(known, claim.labels),
            value_state=decision.value_state,
            sellable=self.policy.sells(decision.value_state.candidates),
            changed_at=self.now if known is None or sets_value else known.changed_at,
            confirmed_at=arrived_at if known is None or sets_value else known.confirmed_at,
            source="webhook" if known is None or sets_value else known.source,
            rule=decision.rule,
        )
        add_change(
            self.writes,
            known,
            state,
            cause="webhook",
            occurred_at=claim.event_at or arrived_at,
            now=self.now,
        )
        self._ask(claim, item_id, arrived_at, self._asked_at(known, decision, arrived_at))
        for seq, value in self.snapshot.missed.get(claim.variant_id, ()):
            if value == claim.value:
                self.writes.explained.add(seq)
        if decision.rule == "same":
            return "unchanged", decision.rule
        return ("verifying" if state.value_state.verifying else "applied"), decision.rule

    def note_mention(self, mention: Mention, arrived_at: datetime) -> None:
        """Doubt what a body names that was not understood; read an item that changed.

        A copy is no exception: equal bytes may be a new event where nothing was understood.
        """
        for variant_id in mention.variant_ids:
            self._doubt(variant_id, mention, arrived_at)
        for item_id in mention.doubted_item_ids:
            if item_id in self.snapshot.items:
                latest = max(arrived_at, self.doubted_items.get(item_id, arrived_at))
                self.doubted_items[item_id] = latest
        for item_id in mention.item_ids:
            if item_id in self.snapshot.items and not self.policy.excludes(item_id):
                request_refresh(self.writes, item_id, None, arrived_at + self.policy.settle)

    def doubt_items(self) -> None:
        """Doubt every variant of the items of which any may have changed, once a batch."""
        for item_id, arrived_at in self.doubted_items.items():
            for variant_id, known in self.snapshot.variants.items():
                if known.item_id == item_id and known.value_state.value is not None:
                    self.apply_update(_something(variant_id), arrived_at)

    def _doubt(self, variant_id: int, mention: Mention, arrived_at: datetime) -> None:
        if self._known(variant_id) is not None:
            self.apply_update(_something(variant_id), arrived_at)
            return
        # Nothing is sold that the mirror does not have; it is only looked for.
        is_foreign = self.policy.is_restricted and variant_id in self.snapshot.foreign
        mirrored = [one for one in mention.item_ids if not self.policy.excludes(one)]
        if not mention.is_certain or is_foreign or (mention.item_ids and not mirrored):
            return
        self.writes.unlocated.add(variant_id)
        for item_id in mirrored:
            if not self._is_unplaced(None, item_id):
                request_refresh(self.writes, item_id, arrived_at, arrived_at + self.policy.settle)

    def _known(self, variant_id: int) -> VariantState | None:
        return self.writes.variants.get(variant_id) or self.snapshot.variants.get(variant_id)

    def _is_unplaced(self, known: VariantState | None, item_id: int | None) -> bool:
        """Tell whether only reading the catalogue shows if the variant is mirrored at all."""
        if known is not None or not self.policy.is_restricted:
            return False
        return item_id not in self.snapshot.items and item_id not in self.policy.items

    def _asked_at(
        self, known: VariantState | None, decision: Decision, arrived_at: datetime
    ) -> datetime | None:
        """Return when to ask before the settled read: once the answer is a witness of its own."""
        if not decision.ask_soon:
            return None
        return arrived_at if known is None else arrived_at + self.policy.settle / WITNESS_SHARE

    def _ask(
        self,
        claim: VariantUpdate,
        item_id: int | None,
        arrived_at: datetime,
        asked_at: datetime | None,
    ) -> None:
        if item_id is None:
            self.writes.unlocated.add(claim.variant_id)
        for asked in (item_id, claim.item_id):
            if asked is not None:
                request_refresh(
                    self.writes,
                    asked,
                    asked_at,
                    arrived_at + self.policy.settle,
                )


def _something(variant_id: int) -> VariantUpdate:
    """Return the claim that a variant may have changed, and not to what."""
    return VariantUpdate(variant_id, item_id=None, value=None, event_at=None, labels=Labels())
