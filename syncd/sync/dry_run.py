"""The dry run of a sweep: reads the whole catalogue and writes nothing."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from syncd.clock import Clock
from syncd.core import pagination
from syncd.core.apply_read import apply_read
from syncd.core.backoff import retry
from syncd.core.jobs import SweepProgress, SweepSummary
from syncd.core.model import ItemRead, SweepResult
from syncd.core.pagination import MAX_ERRORS, Position
from syncd.core.policy import Policy
from syncd.core.read_age import COPY_AGE
from syncd.core.records import Change, ItemSnapshot, count
from syncd.core.removals import row_shows_every_variant
from syncd.errors import (
    SourceAnswerInvalid,
    SourceGone,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
)
from syncd.store import Database
from syncd.store import items as stored_items
from syncd.sync.catalogue_reader import CatalogueReader, rows_with_variants
from syncd.sync.rate_limiter import RateLimiter
from syncd.sync.read_failures import ATTEMPTS_PER_SWEEP, DOWN_AFTER, wait_after
from syncd.sync.sweeps import require_few

log = structlog.get_logger(__name__)

T = TypeVar("T")


class DryRun(Struct):
    """One dry run, within the call budget that all calls share.

    `turn` waits until the next call may leave, and takes the call from the budget.
    """

    database: Database
    reader: CatalogueReader
    rate_limiter: RateLimiter
    turn: Callable[[], Awaitable[None]]
    clock: Clock
    policy: Policy
    items: tuple[int, ...] = ()
    lists_items: bool = True
    categories: tuple[int, ...] = ()
    differences: list[Change] = field(default_factory=list)
    _errors: list[str] = field(default_factory=list)
    _in_a_row: int = 0
    _done: set[int] = field(default_factory=set)
    _calls: int = 0
    _throttled: int = 0
    _variants: int = 0

    async def run(
        self,
        only: Collection[int],
        *,
        on_progress: Callable[[SweepProgress], None] = lambda _: None,
    ) -> SweepSummary:
        """Read the catalogue, or `only` these items, and return the results of such a sweep.

        Then `differences` has the changes that a sweep would write. Raises SourceErrors if
        Dreamship refuses the key or its list cannot be read, and UsageError if too many items are
        named.
        """
        require_few(only)
        began_at = self.clock.now()
        todo = list(dict.fromkeys(only)) or await self._list()
        failed: list[int] = []
        for index, item_id in enumerate(todo):
            total = len(todo)
            on_progress(SweepProgress(0, began_at, index, total, total - index))
            if item_id in self._done:
                continue
            read = await self._read(item_id)
            if read is None:
                failed.append(item_id)
                continue
            if only and read.variants is None:
                self._errors.append(f"Dreamship has no item {item_id}")
            if not read.is_whole:
                failed.append(item_id)
            await self._compare(read)
        counted = count(self.differences)
        if failed and not self._done:
            result: SweepResult = "failed"
        else:
            result = "partial" if failed or self._errors else "complete"
        return SweepSummary(
            sweep_id=0,
            is_catalogue=not only,
            began_at=began_at,
            result=result,
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
            error="; ".join([*self._errors[:MAX_ERRORS], *_more(len(self._errors) - MAX_ERRORS)]),
        )

    async def _list(self) -> list[int]:
        found = dict.fromkeys(self.items)
        if self.lists_items:
            position, run, listed = pagination.first(self.categories), 0, set[int]()
            while not pagination.is_whole(position):
                if position.run != run:
                    run, listed = position.run, set()
                position = await self._list_page(position, listed)
                found.update(dict.fromkeys(listed))
        found.update(dict.fromkeys(await self.database.read(stored_items.ids_with_variants)))
        return list(found)

    async def _list_page(self, position: Position, listed: set[int]) -> Position:
        try:
            page = await self._call(lambda: self.reader.page(position))
        except SourceGone:
            if position.page == 1 and not await self._concerns_page_alone(position):
                raise
            return self._with_errors_added(pagination.after_missing(position, self.categories))
        except (SourceUnreachable, SourceAnswerInvalid, SourceRefused) as error:
            if not await self._concerns_page_alone(position):
                raise
            return self._with_errors_added(
                pagination.after_unreadable(position, self.categories, error)
            )
        ids = [item.item_id for item in page.items]
        stats = pagination.page_stats(
            ids,
            listed,
            listed=len(listed),
            count=page.count,
            has_next=page.has_next,
            broken_rows=page.broken_rows,
        )
        listed.update(ids)
        for row in rows_with_variants(page):
            if page.age < COPY_AGE and row.item_id not in self._done:
                await self._compare(row)
        return self._with_errors_added(pagination.following(position, stats, self.categories))

    async def _concerns_page_alone(self, position: Position) -> bool:
        return not pagination.is_start_of_list(position) and await self._list_answers()

    def _with_errors_added(self, position: Position) -> Position:
        """Add the errors of the list at `position`, and return the position."""
        self._errors += [error for error in position.errors if error not in self._errors]
        return position

    async def _read(self, item_id: int) -> ItemRead | None:
        try:
            read = await self._call(lambda: self._new_item(item_id))
        except (SourceUnreachable, SourceAnswerInvalid, SourceRefused) as error:
            self._in_a_row += 1
            may_be_down = isinstance(error, SourceRefused) or self._in_a_row >= DOWN_AFTER
            if may_be_down and not await self._list_answers():
                raise
            log.warning("a read failed", item_id=item_id, error=error.message)
            self._errors.append(f"item {item_id}: {error.message}")
            return None
        self._in_a_row = 0
        return read

    async def _list_answers(self) -> bool:
        """Return whether the list answers; if not, the failure does not concern one part alone."""
        check = await self.reader.account.check()
        if isinstance(check.error, SourceThrottled):
            await self.rate_limiter.throttled(check.error.wait_s, for_sweep=False)
        return check.error is None

    async def _new_item(self, item_id: int) -> ItemRead:
        """Read one item; a copy from a cache does not show the current differences."""
        read = await self.reader.item(item_id)
        if read.age >= COPY_AGE:
            raise SourceAnswerInvalid(f"a cache answered for item {item_id}, not Dreamship")
        return read

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the answer of a call within the budget, after several attempts if necessary."""
        return await retry(
            lambda: self._unthrottled(call),
            on=(SourceUnreachable, SourceAnswerInvalid),
            attempts=ATTEMPTS_PER_SWEEP,
            # Jitter needs no secure randomness.
            wait=lambda attempt, error: wait_after(error, attempt, random.random()),  # noqa: S311
            sleep=self.clock.sleep,
        )

    async def _unthrottled(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the answer of a call; a throttled call is repeated when the budget allows it."""
        while True:
            await self.turn()
            self._calls += 1
            try:
                answer = await call()
            except SourceThrottled as error:
                self._throttled += 1
                await self.rate_limiter.throttled(error.wait_s, for_sweep=False)
            else:
                self.rate_limiter.answered()
                return answer

    async def _compare(self, read: ItemRead) -> None:
        stored = await self.database.read(lambda db: stored_items.stored_variants(db, read))
        if read.is_row:
            was_read = await self.database.read(lambda db: stored_items.was_read(db, read.item_id))
            if not row_shows_every_variant(stored, read, was_read=was_read):
                return  # the item is read by itself
        # Without the deliveries each read counts as settled, and shows each current difference.
        settled = {
            variant_id: replace(state, value_state=replace(state.value_state, delivered_at=None))
            for variant_id, state in stored.items()
        }
        change_set = apply_read(ItemSnapshot(settled), read, self.policy, now=self.clock.now())
        self.differences += change_set.changes
        self._done.add(read.item_id)
        self._variants += len(read.variants or ())


def _more(errors: int) -> list[str]:
    return [f"and {errors} more"] if errors > 0 else []
