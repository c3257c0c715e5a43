"""A finished read of one item against what the mirror places in it."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.changes import add_change, merge_labels, request_refresh
from syncd.core.merge import Decision, on_read, with_doubt
from syncd.core.model import ItemRead, Labels, SourceVariant
from syncd.core.policy import Policy
from syncd.core.read_age import COPY_AGE, NO_EVIDENCE_AGE
from syncd.core.records import ChangeSet, ItemSnapshot, VariantState
from syncd.core.removals import count_missing, is_whole

# How many times `settle` to wait before an item is read again of which an answer had only a part.
PARTIAL_WAIT = 10


def apply_read(
    known: ItemSnapshot,
    seen: ItemRead,
    policy: Policy,
    *,
    now: datetime,
    heard_since: datetime | None = None,
) -> ChangeSet:
    """Judge a finished read of one item against what is known of it.

    A read that began before the item's last one is overtaken: what it says may be older, so where
    it disagrees the source is asked again. `heard_since`: from when on deliveries could be taken
    without a break; what may have changed before is nobody's missed delivery.
    """
    if policy.excludes(seen.item_id):
        return ChangeSet()  # it was asked for before the configuration left it out
    look = _Look(known, seen, policy, now, heard_since, ChangeSet(), is_whole=is_whole(known, seen))
    told: dict[int, SourceVariant] = {v.variant_id: v for v in seen.variants or ()}
    values: dict[int, tuple[str, ...]] = {}
    for one in seen.variants or ():
        values[one.variant_id] = (*values.get(one.variant_id, ()), one.value)
    last = None if known.item is None else known.item.confirmed_at
    overtaken = (last is not None and seen.began_at < last) or is_no_evidence(known, seen)
    for variant_id in [*told, *(v for v in known.variants if v not in told)]:
        state, variant = known.variants.get(variant_id), told.get(variant_id)
        if variant is None and state is not None and state.item_id != seen.item_id:
            continue  # it has moved to another item, whose read speaks for it
        if variant is None and state is not None and not look.is_whole:
            look.leave(state)
        elif overtaken:
            look.doubt_the_overtaken(state, variant)
        elif variant is not None and len(set(values[variant_id])) > 1:
            look.doubt_the_ambiguous(state, variant, values[variant_id])
        elif state is None:
            look.add_variant(variant_id, variant)
        else:
            look.decide(state, variant)
    if look.settles_at is not None:
        # The deliveries asked for that already, but `settle` may be longer since.
        request_refresh(look.writes, seen.item_id, None, look.settles_at)
    return look.writes


def is_no_evidence(known: ItemSnapshot, seen: ItemRead) -> bool:
    """Tell whether a copy from a cache shows nothing but that the source must be asked again.

    So it is when nobody knows how old it is, and when it lacks something: that it is not there is
    only believed from the source itself.
    """
    if seen.age < COPY_AGE:
        return False
    if seen.variants is None or seen.age >= NO_EVIDENCE_AGE:
        return True
    return count_missing(known.variants, seen) > 0


class _Look(Struct):
    """One finished read being judged, variant by variant."""

    known: ItemSnapshot
    seen: ItemRead
    policy: Policy
    now: datetime
    heard_since: datetime | None
    writes: ChangeSet
    is_whole: bool = True
    settles_at: datetime | None = None

    def doubt_the_overtaken(
        self, state: VariantState | None, variant: SourceVariant | None
    ) -> None:
        """Ask again where a read that a later one has overtaken says something else."""
        value = None if variant is None else variant.value
        if state is None or state.value_state.value != value or state.value_state.verifying:
            request_refresh(self.writes, self.seen.item_id, self.now, self.now)

    def leave(self, known: VariantState) -> None:
        """Leave what a partial answer does not have as it is, and ask for it again.

        The same answer may come every time, so this waits longer than a delivery does.
        """
        delivered_at = known.value_state.delivered_at
        is_unconfirmed = (
            delivered_at is not None and known.confirmed_at < delivered_at + self.policy.settle
        )
        if known.value_state.verifying or is_unconfirmed:
            again_at = self.now + self.policy.settle * PARTIAL_WAIT
            request_refresh(self.writes, self.seen.item_id, None, again_at)

    def doubt_the_ambiguous(
        self, known: VariantState | None, variant: SourceVariant, values: tuple[str, ...]
    ) -> None:
        """Doubt a variant that one answer has with different values; ask again when that is new."""
        if known is None:
            self.add_variant(variant.variant_id, variant)
            known = self.writes.variants[variant.variant_id]
        value_state = known.value_state
        for value in values:
            if value != value_state.value:
                value_state = replace(value_state, doubts=with_doubt(value_state.doubts, value))
        if value_state == known.value_state:
            return
        doubted = replace(
            known,
            value_state=value_state,
            sellable=self.policy.sells(value_state.candidates),
            rule="ambiguous",
        )
        self._note(known, doubted)
        request_refresh(self.writes, self.seen.item_id, None, self.now + self.policy.settle)

    def add_variant(self, variant_id: int, variant: SourceVariant | None) -> None:
        """Write a variant that the mirror did not have."""
        seen = self.seen
        if variant is None:
            return
        value_state = self._verdict(None, variant).value_state
        heard_at = self.known.heard.get(variant_id)
        if heard_at is not None and not self._is_settled(heard_at):
            # A delivery came while nobody knew its item, and this read may lag behind it.
            value_state = replace(value_state, doubts=(None,), delivered_at=heard_at)
        state = VariantState(
            variant_id=variant_id,
            item_id=seen.item_id,
            labels=variant.labels,
            value_state=value_state,
            sellable=self.policy.sells(value_state.candidates),
            changed_at=self.now,
            confirmed_at=seen.began_at,
            source="read",
            rule="not-settled" if value_state.verifying else "settled",
        )
        self._note(None, state)

    def decide(self, known: VariantState, variant: SourceVariant | None) -> None:
        """Write what the read changes of a variant that the mirror has; often nothing."""
        seen = self.seen
        decision = self._verdict(known, variant)
        if known.value_state.delivered_at is not None:
            self._is_settled(known.value_state.delivered_at)
        is_absent = (
            variant is None and decision.rule == "settled" and known.value_state.value is not None
        )
        if is_absent and self.known.absence != "removes":
            self._note_absence(known)
            return
        value_state = decision.value_state
        changed = value_state.value != known.value_state.value
        state = VariantState(
            variant_id=known.variant_id,
            item_id=seen.item_id,
            labels=merge_labels(known, Labels() if variant is None else variant.labels),
            value_state=value_state,
            sellable=self.policy.sells(value_state.candidates),
            changed_at=self.now if changed else known.changed_at,
            confirmed_at=known.confirmed_at if decision.rule == "not-settled" else seen.began_at,
            source="read" if changed else known.source,
            rule=decision.rule,
        )
        # The item's row tells when it was read whole: a variant that is as it was costs no write.
        as_it_was = replace(
            known,
            value_state=replace(known.value_state, read_at=value_state.read_at),
            confirmed_at=seen.began_at,
            rule=state.rule,
        )
        if state != as_it_was or not self.is_whole:
            self._note(known, state, missed=decision.missed)

    def _is_settled(self, delivered_at: datetime) -> bool:
        """Tell whether this read settles a delivery; if not, note when one does."""
        settles_at = delivered_at + self.policy.settle
        if self.seen.began_at >= settles_at:
            return True
        if self.settles_at is None or settles_at > self.settles_at:
            self.settles_at = settles_at
        return False

    def _verdict(self, known: VariantState | None, variant: SourceVariant | None) -> Decision:
        return on_read(
            None if known is None else known.value_state,
            value=None if variant is None else variant.value,
            began_at=self.seen.began_at,
            source_at=self.seen.source_at,
            settle=self.policy.settle,
        )

    def _note_absence(self, known: VariantState) -> None:
        """Take it off sale until the sweep ends, unless too much is absent to be believed."""
        value_state = known.value_state
        # What an earlier sweep missed and was not believed is not doubted anew by each sweep.
        was_lifted = known.absent_at is not None and None not in value_state.doubts
        if self.known.absence == "doubts" and not was_lifted:
            value_state = replace(value_state, doubts=with_doubt(value_state.doubts, None))
        state = replace(
            known,
            value_state=value_state,
            sellable=self.policy.sells(value_state.candidates),
            rule="absent",
            absent_at=self.seen.began_at,
        )
        self._note(known, state)

    def _note(
        self, known: VariantState | None, state: VariantState, *, missed: bool = False
    ) -> None:
        add_change(
            self.writes,
            known,
            state,
            cause="read",
            occurred_at=self.seen.began_at,
            now=self.now,
            missed=missed,
            is_excused=missed and self._was_deaf_since(known),
        )

    def _was_deaf_since(self, known: VariantState | None) -> bool:
        """Tell whether it may have changed while nobody here could hear of it."""
        return known is not None and (
            self.heard_since is not None and known.confirmed_at < self.heard_since
        )
