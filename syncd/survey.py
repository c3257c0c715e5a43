"""What would a sweep change? A look at the whole catalogue that writes nothing."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, TypeVar

import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from syncd import listing, observations
from syncd.asking import TRIES_PER_SWEEP
from syncd.budget import Budget
from syncd.errors import SourceAnswerInvalid, SourceGone, SourceThrottled, SourceUnreachable
from syncd.listing import Position
from syncd.model import ItemRead, Page
from syncd.pace import backoff
from syncd.ports import Clock, Source, SweepProgress, SweepSummary
from syncd.state import Change, Known, Policy, VariantState, count

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Shelves(Protocol):
    """What a survey needs of the mirror."""

    async def known_items(self) -> list[int]:
        """Return every item that has something to lose."""
        ...

    async def known_variants(self, seen: ItemRead) -> dict[int, VariantState]:
        """Return what a read of this item is judged against."""
        ...


class Survey(Struct):
    """One look, inside the budget that everything shares."""

    shelves: Shelves
    source: Source
    budget: Budget
    clock: Clock
    policy: Policy
    items: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()
    differences: list[Change] = field(default_factory=list)
    _done: set[int] = field(default_factory=set)
    _calls: int = 0
    _throttled: int = 0
    _variants: int = 0

    async def look(
        self, only: Collection[int], *, tell: Callable[[SweepProgress], None] = lambda _: None
    ) -> SweepSummary:
        """Read the catalogue, or `only` those items, and return what a sweep would have done.

        `differences` are then the changes it would have written. Raises SourceError leaves when
        the source refuses or cannot be listed.
        """
        began_at = self.clock.now()
        todo = list(only) or await self._list()
        failed: list[int] = []
        for index, item_id in enumerate(todo):
            total = len(todo)
            tell(SweepProgress(0, began_at, index, total, total - index))
            if item_id in self._done:
                continue
            seen = await self._read(item_id)
            if seen is None:
                failed.append(item_id)
                continue
            if not seen.is_whole:
                failed.append(item_id)
            await self._compare(seen)
        counted = count(self.differences)
        return SweepSummary(
            sweep_id=0,
            is_catalogue=not only,
            began_at=began_at,
            result="partial" if failed else "complete",
            items=len(self._done),
            variants=self._variants,
            changed=counted.changed,
            added=counted.added,
            removed=counted.removed,
            missed=counted.missed,
            calls=self._calls,
            throttled=self._throttled,
            seconds=round((self.clock.now() - began_at).total_seconds(), 3),
            failed_items=failed,
        )

    async def _list(self) -> list[int]:
        found = dict.fromkeys(self.items)
        if not self.items or self.categories:
            position, run, listed = listing.first(self.categories), 0, set[int]()
            while not listing.is_whole(position):
                if position.run != run:
                    run, listed = position.run, set()
                position = await self._list_page(position, listed)
                found.update(dict.fromkeys(listed))
        found.update(dict.fromkeys(await self.shelves.known_items()))
        return list(found)

    async def _list_page(self, position: Position, listed: set[int]) -> Position:
        try:
            page: Page = await self._asked(
                lambda: self.source.page(position.category, position.page)
            )
        except SourceGone:
            if position.page == 1:
                raise
            return listing.cut_short(position, self.categories)
        shown = [item.item_id for item in page.items]
        seen = listing.look(shown, listed, count=page.count, has_next=page.has_next)
        listed.update(shown)
        for item in page.items:
            if item.variants is not None and item.is_whole and item.item_id not in self._done:
                await self._compare(
                    ItemRead(item.item_id, item.name, item.variants, page.began_at, page.source_at)
                )
        return listing.following(position, seen, self.categories)

    async def _read(self, item_id: int) -> ItemRead | None:
        began_at = self.clock.now()
        try:
            return await self._asked(lambda: self.source.item(item_id))
        except SourceGone:
            return ItemRead(item_id, None, None, began_at, None)
        except (SourceUnreachable, SourceAnswerInvalid) as fault:
            log.warning("a read failed", item_id=item_id, fault=fault.message)
            return None

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return an answer, paid for from the budget, after some tries if need be."""
        attempt = 0
        while True:
            while (wait_s := self.budget.wait_s(urgent=False)) > 0:
                await self.clock.sleep(wait_s)
            await self.budget.spend(for_sweep=False)
            self._calls += 1
            try:
                answer = await ask()
            except SourceThrottled as fault:
                self._throttled += 1
                await self.budget.throttled(fault.wait_s, for_sweep=False)
            except (SourceUnreachable, SourceAnswerInvalid):
                attempt += 1
                if attempt >= TRIES_PER_SWEEP:
                    raise
                chance = random.random()  # noqa: S311 - jitter, no secret
                await self.clock.sleep(backoff(attempt, chance).total_seconds())
            else:
                self.budget.answered()
                return answer

    async def _compare(self, seen: ItemRead) -> None:
        known = await self.shelves.known_variants(seen)
        # Judged as if it were settled: what differs now is a difference now.
        settled = {
            variant_id: replace(state, belief=replace(state.belief, delivered_at=None))
            for variant_id, state in known.items()
        }
        writes = observations.read(Known(settled), seen, self.policy, now=self.clock.now())
        self.differences += writes.changes
        self._done.add(seen.item_id)
        self._variants += len(seen.variants or ())
