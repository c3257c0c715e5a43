"""The calls that sweeps and dry runs share: one item, or one page of a list."""

from __future__ import annotations

from collections.abc import Iterator

from syncd.clock import Clock
from syncd.core.model import ItemRead, Page
from syncd.core.pagination import Position
from syncd.dreamship.remote_clock import RemoteClock
from syncd.dreamship.source import Source
from syncd.errors import SourceGone
from syncd.sync.account import Account


class CatalogueReader:
    """Makes calls to Dreamship. Each answer has the age of its content; nothing is written."""

    def __init__(
        self, source: Source, account: Account, clock: Clock, remote_clock: RemoteClock
    ) -> None:
        self.account = account
        self._source = source
        self._clock = clock
        self._remote_clock = remote_clock

    async def item(self, item_id: int) -> ItemRead:
        """Read one item; an item that does not exist has no variants (None).

        Raises SourceErrors.
        """
        began_at = self._clock.now()
        try:
            read = await self._source.item(item_id)
        except SourceGone as gone:
            read = ItemRead(
                item_id,
                None,
                None,
                began_at,
                gone.source_at,
                age=gone.age,
                fresh_for=gone.fresh_for,
            )
            if not gone.age:
                # With a wrong base URL every answer is 404. So a 404 counts only if the list
                # answers.
                check = await self.account.check()
                if check.state != "answers":
                    raise check.error or gone from gone
        return self._remote_clock.placed(read, item_id)

    async def page(self, position: Position) -> Page:
        """Read the page at `position`; raises SourceErrors."""
        page = await self._source.page(position.category, position.page)
        page = self._remote_clock.placed(page, (position.category, position.page))
        if position.category is None and not page.age:
            self.account.list_answered()
        return page


def rows_with_variants(page: Page) -> Iterator[ItemRead]:
    """Return the rows of a page that list variants, each as a read of its item."""
    longest = max((len(item.variants or ()) for item in page.items), default=0)
    for item in page.items:
        # Some lists have an empty list of variants in each row, so it proves nothing.
        if item.variants:
            yield ItemRead(
                item.item_id,
                item.name,
                item.variants,
                page.began_at,
                page.source_at,
                age=page.age,
                # A list may limit the variants of a row: the longest row may lack some.
                is_whole=item.is_whole and len(item.variants) < longest,
                is_row=True,
                details=item.details,
            )
