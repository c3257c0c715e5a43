"""The interface of Dreamship's catalogue. The simulation implements it too."""

from __future__ import annotations

from typing import Protocol

from syncd.core.model import ItemRead, Page


class Source(Protocol):
    """Dreamship's GET endpoints. Each call raises kinds of `SourceError`."""

    async def item(self, item_id: int) -> ItemRead:
        """Read one item with its variants; raises SourceGone if there is none."""
        ...

    async def page(self, category_id: int | None, page: int) -> Page:
        """Read one page of the catalogue, or of one category."""
        ...
