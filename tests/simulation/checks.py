"""The conditions after each transaction and at the end. The first one that fails ends the run.

After every transaction:

feed      The changes so far, applied to an empty table, equal the view `availability`; `seq`
          rises.
off sale  (1) Once a delivery with an unsellable value is applied, the variant is not sellable. (2)
          It stays so until one of three events: a later delivery with a sellable value and a newer
          timestamp (only if the value of the first one was applied, and is not just a conflicting
          value); a settled read; or a read that began a third of `settle` after the last delivery
          and agrees with the sellable value of the mirror (rule 5). An unsettled read that
          disagrees never makes a variant sellable.
settled   After a settled read, the mirror has the same value and no conflicting values.
swept     A variant that was in the catalogue during a whole complete sweep is in the mirror.
confirmed When an item leaves the refresh queue, its last read began at least `settle` after the
          last delivery of each of its variants.
on time   In a calm world (reads wait only for the budget), a variant that Dreamship no longer
          sells, and for which a delivery arrived since then, is sellable for at most `settle` +
          TURN_S after its last delivery; a settled read confirms each delivery within that time.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from simulation.clock import BEGIN
from simulation.scenario import Scenario
from simulation.truth import BLOCKED, Truth
from simulation.witness import Step
from simulation.witnesses import COUNTED_OUTCOMES, Record
from simulation.world import SOLD
from syncd.core.merge import CONFIRM_SHARE, FUTURE_TOLERANCE
from syncd.core.model import Delivery, ItemRead, VariantDetails, VariantUpdate
from syncd.core.timestamps import from_text

# How long a read may wait for its turn if it waits only for the budget: for a read of the same item
# (30 s), a window that conflicts have used up (61 s), every other item at 30 a minute,
# the pages of a sweep read three times, and its own answer (30 s).
TURN_S = 240.0
# The oldest copy that is not recognised by its Date right after a start.
UNSEEN_S = 35.0

_ROWS = """SELECT variant_id, availability, sellable, removed, verifying, item_id IS NOT NULL
           FROM availability"""
_CHANGES = """SELECT seq, variant_id, old_availability, availability, old_sellable, sellable
              FROM changes WHERE seq > ? ORDER BY seq"""


class Row(NamedTuple):
    """One variant in the view of a shop."""

    value: str | None
    sellable: int
    removed: int
    verifying: int
    placed: int = 1


class Checks:
    """Checks the mirror with the rights of a shop; `error` is the first failed condition."""

    def __init__(
        self,
        truth: Truth,
        scenario: Scenario,
        *,
        elapsed: Callable[[], timedelta],
        now: Callable[[], datetime],
        settle: timedelta,
        trace: Callable[[str], None],
    ) -> None:
        self.error: str | None = None
        self.failed = asyncio.Event()
        self.transactions = 0
        self.reads = 0
        self._truth = truth
        self._scenario = scenario
        self._elapsed = elapsed
        self._now = now
        # The compared times were rounded to microseconds by another clock.
        self._settle = settle - timedelta(milliseconds=1)
        self._trace = trace
        self._records: dict[int, Record] = {}
        self._delivered_s: dict[int, float] = {}
        self._begun_s: dict[int, float] = {}
        self._rows: dict[int, Row] = {}
        self._fed: dict[int, tuple[str | None, int]] = {}
        self._seq = 0
        self._mirror: sqlite3.Connection | None = None

    def watch(self, mirror: sqlite3.Connection | None) -> None:
        """Check this mirror from now on."""
        if self._mirror is not None:
            self._mirror.close()
        self._mirror = mirror

    def fail(self, error: str) -> None:
        """Store the first error, and end the run."""
        if self.error is None:
            self.error = f"{asyncio.get_running_loop().time():.3f} s: {error}"
            self._trace(f"ERROR {error}")
            self.failed.set()

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return rows of the mirror."""
        if self._mirror is None:
            return []
        return self._mirror.execute(sql, values).fetchall()

    def rows(self) -> dict[int, Row]:
        """Return the whole mirror."""
        if self._mirror is None:
            return {}
        return {row[0]: Row(*row[1:]) for row in self._mirror.execute(_ROWS)}

    def committed(self, step: Step | None, source_now: datetime) -> None:
        """Check one transaction; `source_now` is Dreamship's clock by the estimate of syncd."""
        before, self._rows = self._rows, self.rows()
        self.transactions += 1
        self._check_feed()
        self._add_sweep()
        if step is not None:
            self._add_step(step, before, source_now)
        for variant_id, row in self._rows.items():
            record = self._records.get(variant_id)
            if row.sellable and record is not None and record.objections:
                self.fail(f"{variant_id} is on sale against {record.objections}")

    def unchanged(self, read: ItemRead) -> None:
        """Check a read that changes nothing and is written later: the mirror is right already."""
        self.reads += 1
        self._add_read(read, self._rows)

    def tick(self) -> None:
        """Check the conditions that fail because time passes."""
        now_s = asyncio.get_running_loop().time()
        for variant_id, record in self._records.items():
            row = self._rows.get(variant_id)
            if row is None or not row.placed or not self._is_overdue(record):
                continue
            if record.unconfirmed_since is not None:
                self.fail(f"no settled read has confirmed the delivery of {variant_id}: {record}")
            since_s = self._truth.unsold_since(variant_id, now_s, SOLD)
            delivered_s = self._delivered_s.get(variant_id)
            is_reported = since_s is not None and delivered_s is not None and delivered_s >= since_s
            if row.sellable and is_reported:
                self.fail(f"{variant_id} is still sellable, unlike Dreamship since {since_s} s")

    def _is_overdue(self, record: Record) -> bool:
        longest = self._settle + timedelta(seconds=TURN_S)
        return record.last_at is not None and BEGIN + self._elapsed() > record.last_at + longest

    def _steady(self, moment: datetime) -> datetime:
        """Return the time by a clock that is never set, and that stops with the host."""
        return BEGIN + self._elapsed() - (self._now() - moment)

    def _add_sweep(self) -> None:
        """Store when the newest sweep began."""
        for (sweep_id,) in self.query("SELECT max(sweep_id) FROM sweeps"):
            self._begun_s.setdefault(sweep_id, asyncio.get_running_loop().time())

    def swept(self, sweep_id: int, in_scope: Callable[[int], bool]) -> None:
        """Check that a complete sweep found each variant that existed all the time."""
        truth, now_s = self._truth, asyncio.get_running_loop().time()
        from_s = self._begun_s[sweep_id] - self._scenario.lag_s
        from_s -= UNSEEN_S if self._scenario.cache_s else 0.0
        rows = self.rows()
        # Known limit: if one item goes and another comes while pages are read, `count` stays the
        # same and a new item may move from the next page to the last one without being read; unless
        # the removed item is read by itself, and its 404 causes another reading of the listing.
        slides = self._scenario.rows != "bare" and any(
            history.goes(from_s, now_s) for history in truth.items.values()
        )
        for variant_id, history in truth.variants.items():
            item_id = truth.item_of[variant_id]
            if slides and variant_id not in rows:
                continue
            if not in_scope(item_id) or not history.was_there(from_s, now_s):
                continue
            row = rows.get(variant_id)
            if row is not None and row.sellable and truth.is_blocked(item_id, from_s, now_s):
                self.fail(f"{variant_id} is on sale; its item {item_id} is {BLOCKED}")
            is_missing = row is None or (row.removed and not row.verifying)
            if is_missing and truth.items[item_id].was_there(from_s, now_s):
                self.fail(f"a whole sweep did not see {variant_id} of item {item_id}: {row}")

    def compare(self, *, removals: bool, in_scope: Callable[[int], bool]) -> None:
        """Check that mirror and source are the same."""
        now_s = asyncio.get_running_loop().time()
        rows = self.rows()
        for variant_id in self._truth.variants:
            value = self._truth.visible(variant_id, now_s)
            row = rows.get(variant_id)
            if not in_scope(self._truth.item_of[variant_id]):
                if row is not None and row.sellable:
                    self.fail(f"{variant_id} is on sale and outside the mirrored catalogue")
            elif value is None:
                if removals and row is not None and not row.removed:
                    self.fail(f"{variant_id} is gone at the source, the mirror has {row}")
            elif row is None or row[:4] != (value, int(self._is_sold(variant_id, now_s)), 0, 0):
                self.fail(f"{variant_id} is {value!r} at the source, the mirror has {row}")

    def _is_sold(self, variant_id: int, moment_s: float) -> bool:
        is_blocked = self._truth.is_blocked(self._truth.item_of[variant_id], moment_s, moment_s)
        return self._truth.visible(variant_id, moment_s) in SOLD and not is_blocked

    def check_stored(self, answered: Collection[str]) -> None:
        """Check that every answered delivery is stored."""
        check_stored = {row[0] for row in self.query("SELECT event_id FROM deliveries")}
        if lost := set(answered) - check_stored:
            self.fail(f"answered and lost: {sorted(lost)}")

    def _check_feed(self) -> None:
        if self._mirror is None:
            return
        for seq, variant_id, old, value, old_sellable, sellable in self._mirror.execute(
            _CHANGES, (self._seq,)
        ):
            if seq <= self._seq:
                self.fail(f"the feed's seq {seq} does not rise")
            if self._fed.get(variant_id, (None, 0)) != (old, old_sellable):
                self.fail(
                    f"change {seq} of {variant_id} begins at {(old, old_sellable)}, the feed had "
                    f"{self._fed.get(variant_id)}"
                )
            self._seq = seq
            self._fed[variant_id] = (value, sellable)
            self._trace(f"mirror: {variant_id} {old!r}/{old_sellable} -> {value!r}/{sellable}")
        shown = {
            variant_id: (row.value, row.sellable)
            for variant_id, row in self._rows.items()
            if not row.removed or variant_id in self._fed  # gone before it was ever known
        }
        if self._fed != shown:
            self.fail(f"the feed says {self._fed}, the view {shown}")

    def _add_step(self, step: Step, before: dict[int, Row], source_now: datetime) -> None:
        for item_id in step.confirmed:
            self._check_confirmed(item_id)
        for results in step.results:
            update = results.delivery.update
            if results.delivery.mention is not None:
                self._add_mention(results.delivery, before)
            if update is None or results.outcome not in COUNTED_OUTCOMES:
                continue
            is_sold = update.value in SOLD
            record = self._records.setdefault(update.variant_id, Record())
            if results.rule is None:  # its item is not known, the mirror has no row of it
                record.arrive(self._steady(results.delivery.arrived_at))
                continue
            record.add_delivery(
                update,
                self._steady(results.delivery.arrived_at),
                results.rule,
                event_at=_placed(update.event_at, source_now),
                is_sold=is_sold,
            )
            if not is_sold and update.value is not None:
                self._delivered_s[update.variant_id] = asyncio.get_running_loop().time()
            self._trace(
                f"judged: {update.variant_id}={update.value} at {_seconds(update.event_at)}:"
                f" {results.outcome} ({results.rule})"
            )
        if step.read is not None and not step.was_overtaken:
            self.reads += 1
            self._add_read(step.read, before)

    def _add_mention(self, delivery: Delivery, before: dict[int, Row]) -> None:
        """Require that the variants in a quarantined body are unsellable until a read."""
        mention, arrived_at = delivery.mention, self._steady(delivery.arrived_at)
        for variant_id in () if mention is None else mention.variant_ids:
            if variant_id not in self._truth.variants:
                continue
            record = self._records.setdefault(variant_id, Record())
            if variant_id not in before:
                record.arrive(arrived_at)
                continue
            update = VariantUpdate(variant_id, None, None, None, VariantDetails())
            record.add_delivery(update, arrived_at, "contradicts", event_at=None, is_sold=False)
            self._trace(f"judged: {variant_id} is named by a body that was not understood")

    def _add_read(self, read: ItemRead, before: dict[int, Row]) -> None:
        began_at = self._steady(read.began_at)
        values: dict[int, str] = {one.variant_id: one.value for one in read.variants or ()}
        is_whole = read.is_whole and not read.is_row
        placed = self._placed_in(read.item_id) if is_whole else set()
        for variant_id in sorted(placed | values.keys()):
            record = self._records.setdefault(variant_id, Record())
            row, value = self._rows.get(variant_id), values.get(variant_id)
            if record.is_settled(began_at, self._settle):
                record.objections.clear()
                record.unconfirmed_since = None
                # A variant that a sweep does not find is unsellable until the sweep ends.
                is_absent = row is not None and value is None and row.verifying and not row.sellable
                # It is not removed if too many variants would be removed within a day.
                is_removal_held = value is None and bool(
                    self.query(
                        "SELECT 1 FROM variants WHERE variant_id = ? AND missing_since IS NOT NULL",
                        variant_id,
                    )
                )
                is_as_read = row is None or (row.value, row.verifying) == (value, 0)
                if not (is_as_read or is_absent or is_removal_held):
                    self.fail(f"a settled read says {variant_id}={value}, the mirror {row}")
            elif (
                variant_id in before
                and before[variant_id].value == value
                and record.is_settled(began_at, self._settle / CONFIRM_SHARE)
            ):
                record.agree(value)
            self._trace(f"read: {variant_id}={value}, began {_seconds(began_at)}: {row}")
        self._check_confirmed(read.item_id)

    def _check_confirmed(self, item_id: int) -> None:
        if self.query("SELECT 1 FROM refresh_queue WHERE item_id = ?", item_id):
            return
        for variant_id in self._placed_in(item_id) & self._records.keys():
            last_at = self._records[variant_id].last_at
            if self._records[variant_id].unconfirmed_since is None:
                continue
            # Like the view: a partial read confirms only the variants that it shows.
            ((at,),) = self.query(
                """SELECT max(v.confirmed_at, coalesce(i.confirmed_at, '')) FROM variants v
                   JOIN items i ON i.item_id = v.item_id WHERE v.variant_id = ?""",
                variant_id,
            )
            if last_at is not None and self._steady(from_text(at)) < last_at + self._settle:
                self.fail(f"nothing asks any more to confirm the last delivery of {variant_id}")

    def _placed_in(self, item_id: int) -> set[int]:
        """Return the variants of an item that the mirror has with their item."""
        here = self._truth.of_item(item_id)
        return {v for v in here if v in self._rows and self._rows[v].placed}


def _placed(event_at: datetime | None, source_now: datetime) -> datetime | None:
    """Return the time of an event, or None if it is in the future, which rule 3 ignores."""
    is_future = event_at is not None and event_at > source_now + FUTURE_TOLERANCE
    return None if is_future else event_at


def _seconds(moment: datetime | None) -> str:
    return "?" if moment is None else f"{(moment - BEGIN).total_seconds():.1f}"
