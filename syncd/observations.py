"""From what is known and what was observed to what must be written: whole batches, purely.

`merge` judges one variant; this page carries its verdicts to the rows of the mirror: variants,
the change feed, and the questions put to the source. The store loads a snapshot, calls one of
these functions and writes what they return, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from syncd.deliveries import dedupe_key, is_named_by_its_bytes
from syncd.merge import Rule, Value, on_delivery, on_read
from syncd.model import Cause, Claim, Delivery, ItemRead, Labels, Outcome, SourceVariant
from syncd.state import Change, ItemState, Judged, Policy, Question, Snapshot, VariantState, Writes


def deliver(
    snapshot: Snapshot,
    batch: Sequence[Delivery],
    policy: Policy,
    *,
    now: datetime,
    source_now: datetime,
) -> Writes:
    """Judge a batch of authentic deliveries in the order of their arrival.

    `source_now` is Dreamship's clock as well as it is known here.
    """
    hearing = _Hearing(snapshot, policy, now, source_now, Writes())
    seen = set(snapshot.seen)
    for delivery in batch:
        key = (delivery.event_id, dedupe_key(delivery))
        is_copy = key in seen
        seen.add(key)
        outcome: Outcome
        rule: Rule | None = None
        if is_copy and not hearing.is_news(delivery):
            outcome = "duplicate"
        elif delivery.claim is None:
            outcome = "quarantined" if delivery.quarantined is not None else "ignored"
        else:
            outcome, rule = hearing.hear(delivery.claim, delivery.arrived_at)
        hearing.writes.judged.append(Judged(delivery, key, outcome, rule, is_copy))
    return hearing.writes


class _Hearing(Struct):
    """One batch of deliveries being judged; what is written by one is known to the next."""

    snapshot: Snapshot
    policy: Policy
    now: datetime
    source_now: datetime
    writes: Writes

    def is_news(self, delivery: Delivery) -> bool:
        """Tell whether equal bytes may be a new event: no uuid tells them apart, they disagree."""
        if delivery.claim is None or not is_named_by_its_bytes(delivery):
            return False
        known = self._known(delivery.claim.variant_id)
        return known is None or delivery.claim.value not in known.belief.candidates

    def hear(self, claim: Claim, arrived_at: datetime) -> tuple[Outcome, Rule | None]:
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
        verdict = on_delivery(
            None if known is None else known.belief,
            value=claim.value,
            event_at=claim.event_at,
            arrived_at=arrived_at,
            read_at=None if item is None else item.read_at,
            source_now=self.source_now,
        )
        sets_value = known is None or verdict.rule == "newer"
        state = VariantState(
            variant_id=claim.variant_id,
            item_id=item_id,
            labels=_fuller(known, claim.labels),
            belief=verdict.belief,
            sellable=self.policy.sells(verdict.belief.candidates),
            changed_at=self.now if known is None or sets_value else known.changed_at,
            confirmed_at=arrived_at if known is None or sets_value else known.confirmed_at,
            source="webhook" if known is None or sets_value else known.source,
        )
        _write(
            self.writes,
            known,
            state,
            cause="webhook",
            occurred_at=claim.event_at or arrived_at,
            now=self.now,
        )
        self._ask(claim, item_id, arrived_at, hurry=verdict.ask_now)
        self.writes.explained.update(
            seq
            for seq, value in self.snapshot.missed.get(claim.variant_id, ())
            if value == claim.value
        )
        if verdict.rule == "same":
            return "unchanged", verdict.rule
        return ("verifying" if state.belief.verifying else "applied"), verdict.rule

    def _known(self, variant_id: int) -> VariantState | None:
        return self.writes.variants.get(variant_id) or self.snapshot.variants.get(variant_id)

    def _is_unplaced(self, known: VariantState | None, item_id: int | None) -> bool:
        """Tell whether only reading the catalogue shows if the variant is mirrored at all."""
        if known is not None or not self.policy.is_restricted:
            return False
        return item_id not in self.snapshot.items and item_id not in self.policy.items

    def _ask(self, claim: Claim, item_id: int | None, arrived_at: datetime, *, hurry: bool) -> None:
        if item_id is None:
            self.writes.unlocated.add(claim.variant_id)
        for asked in (item_id, claim.item_id):
            if asked is not None:
                _ask(
                    self.writes,
                    asked,
                    arrived_at if hurry else None,
                    arrived_at + self.policy.settle,
                )


def read(
    known: dict[int, VariantState],
    before: ItemState | None,
    seen: ItemRead,
    policy: Policy,
    *,
    now: datetime,
) -> Writes:
    """Judge a finished read of one item against the `known` variants of it.

    `known` holds every variant the mirror places in this item and every one the read names. A read
    that began before the item's last one is overtaken: what it says may be older, so where it
    disagrees the source is asked again.
    """
    writes = Writes()
    if policy.excludes(seen.item_id):
        return writes  # it was asked for before the configuration left it out
    told: dict[int, SourceVariant] = {v.variant_id: v for v in seen.variants or ()}
    overtaken = (
        before is not None
        and before.confirmed_at is not None
        and seen.began_at < before.confirmed_at
    )
    for variant_id in [*told, *(v for v in known if v not in told)]:
        state = known.get(variant_id)
        variant = told.get(variant_id)
        if variant is None and state is not None and state.item_id != seen.item_id:
            continue  # it has moved to another item, whose read speaks for it
        value = None if variant is None else variant.value
        if overtaken:
            if state is None or state.belief.value != value or state.belief.verifying:
                _ask(writes, seen.item_id, now, now)
            continue
        looked = _looked(seen, variant_id, state, variant, policy, now=now)
        if looked is not None:
            _write(
                writes,
                state,
                looked[0],
                cause="read",
                occurred_at=seen.began_at,
                now=now,
                missed=looked[1],
            )
    return writes


def _looked(
    seen: ItemRead,
    variant_id: int,
    known: VariantState | None,
    variant: SourceVariant | None,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[VariantState, bool] | None:
    """Return one variant's new row and whether its change was missed; None: nothing to write."""
    value: Value = None if variant is None else variant.value
    verdict = on_read(
        None if known is None else known.belief,
        value=value,
        began_at=seen.began_at,
        source_at=seen.source_at,
        settle=policy.settle,
    )
    belief = verdict.belief
    labels = _fuller(known, Labels() if variant is None else variant.labels)
    sellable = policy.sells(belief.candidates)
    if known is None:
        new = VariantState(
            variant_id, seen.item_id, labels, belief, sellable, now, seen.began_at, "read"
        )
        return new, False
    changed = belief.value != known.belief.value
    state = VariantState(
        variant_id=variant_id,
        item_id=seen.item_id,
        labels=labels,
        belief=belief,
        sellable=sellable,
        changed_at=now if changed else known.changed_at,
        confirmed_at=known.confirmed_at if verdict.rule == "not-settled" else seen.began_at,
        source="read" if changed else known.source,
    )
    # The item's row tells when it was read: a variant that is as it was costs no write.
    as_it_was = replace(
        known, belief=replace(known.belief, read_at=belief.read_at), confirmed_at=seen.began_at
    )
    return None if state == as_it_was else (state, verdict.missed)


def not_found(
    known: dict[int, VariantState], began_at: datetime, policy: Policy, *, now: datetime
) -> Writes:
    """Judge variants of no known item after a whole sweep, begun at `began_at`, did not find them.

    What was delivered since then (or shortly before) waits for the next sweep.
    """
    writes = Writes()
    for state in known.values():
        verdict = on_read(
            state.belief, value=None, began_at=began_at, source_at=None, settle=policy.settle
        )
        if verdict.rule == "settled" and state.belief != verdict.belief:
            gone = replace(
                state,
                belief=verdict.belief,
                sellable=False,
                changed_at=now,
                confirmed_at=began_at,
                source="read",
            )
            _write(writes, state, gone, cause="read", occurred_at=began_at, now=now)
    return writes


def rejudge(states: Sequence[VariantState], policy: Policy, *, now: datetime) -> Writes:
    """Judge again what is sellable and what is mirrored, after the configuration changed."""
    writes = Writes()
    for known in states:
        state = known
        if policy.excludes(known.item_id) and known.belief.value is not None:
            # Nobody will tell about it any more: it must not stay on sale.
            state = replace(
                state, belief=replace(known.belief, value=None, doubts=()), changed_at=now
            )
        state = replace(state, sellable=policy.sells(state.belief.candidates))
        if state != known:
            _write(writes, known, state, cause="config", occurred_at=now, now=now)
    return writes


def _write(
    writes: Writes,
    known: VariantState | None,
    state: VariantState,
    *,
    cause: Cause,
    occurred_at: datetime,
    now: datetime,
    missed: bool = False,
) -> None:
    writes.variants[state.variant_id] = state
    old = None if known is None else known.belief.value
    old_sellable = known is not None and known.sellable
    if known is not None and (old, old_sellable) == (state.belief.value, state.sellable):
        return
    if known is None and state.belief.value is None:
        return  # gone before it was ever known: nothing a reader of the feed could have
    writes.changes.append(
        Change(
            variant_id=state.variant_id,
            item_id=state.item_id,
            old_availability=old,
            availability=state.belief.value,
            old_sellable=old_sellable,
            sellable=state.sellable,
            cause=cause,
            missed=missed,
            occurred_at=occurred_at,
            recorded_at=now,
        )
    )


def _ask(writes: Writes, item_id: int, asked_at: datetime | None, settle_at: datetime) -> None:
    before = writes.questions.get(item_id)
    if before is not None:
        asked_at = before.asked_at if asked_at is None else asked_at
        settle_at = max(before.settle_at, settle_at)
    writes.questions[item_id] = Question(item_id, asked_at, settle_at)


def _fuller(known: VariantState | None, labels: Labels) -> Labels:
    """Return the newer names, keeping an old one where the newer observation is silent."""
    if known is None:
        return labels
    old = known.labels
    return Labels(
        name=old.name if labels.name is None else labels.name,
        color=old.color if labels.color is None else labels.color,
        size=old.size if labels.size is None else labels.size,
    )
