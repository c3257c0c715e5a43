"""Dreamship's API behind one object for the life of a process; a reload replaces its client."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from syncd.config import Config
from syncd.core.model import ItemRead, Page
from syncd.dreamship.client import DreamshipClient


class ReplaceableSource:
    """Implements Source with the client in force."""

    def __init__(self, client: DreamshipClient) -> None:
        self._client = client

    async def item(self, item_id: int) -> ItemRead:
        """See Source."""
        return await self._client.item(item_id)

    async def page(self, category_id: int | None, page: int) -> Page:
        """See Source."""
        return await self._client.page(category_id, page)

    async def replace(self, client: DreamshipClient) -> None:
        """Use another client from now on, and close the old one."""
        old, self._client = self._client, client
        await old.aclose()

    async def aclose(self) -> None:
        """Close the client in force."""
        await self._client.aclose()


def client_for(config: Config, now: Callable[[], datetime]) -> DreamshipClient:
    """Return a client with the settings of `[dreamship]`; the first key reads."""
    return DreamshipClient(
        config.dreamship.base_url,
        config.keys[0].reveal(),
        timeout_s=config.dreamship.timeout_seconds,
        now=now,
    )
