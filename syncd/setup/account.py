"""Asks Dreamship whether it accepts a key, and which values its items have. Writes nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime

from msgspec import Struct

from syncd import http_client
from syncd.config import Config, Secret
from syncd.config.runtime import runtime_config
from syncd.core.model import Page
from syncd.dreamship.client import DreamshipClient
from syncd.errors import (
    MirrorError,
    SourceError,
    SourceGone,
    SourceRefused,
    SourceUnreachable,
)
from syncd.store import Queries

# The values that a list names, and the items that are read to find them.
MAX_VALUES = 20
MAX_ITEMS = 10


class Values(Struct, frozen=True):
    """The values of availability, each with its number of variants, the most frequent first.

    `items`: how many items were read for it, None: the mirror has the whole catalogue.
    """

    counts: dict[str, int]
    items: int | None = None


@asynccontextmanager
async def _client(config: Config, key: Secret) -> AsyncIterator[DreamshipClient]:
    client = DreamshipClient(
        config.dreamship.base_url,
        key.reveal(),
        timeout_s=config.dreamship.timeout_seconds,
        now=lambda: datetime.now(UTC),
    )
    try:
        yield client
    finally:
        await client.aclose()


async def first_page(config: Config, key: Secret) -> Page:
    """Return the first page of the catalogue, with one call; raises SourceError with a hint."""
    try:
        async with _client(config, key) as client:
            return await client.page(None, 1)
    except SourceRefused as error:
        raise SourceRefused(
            error.message,
            hint="copy the whole key of this account from "
            "https://app.dreamship.com/app/settings/api/; it may have been revoked",
        ) from None
    except SourceUnreachable as error:
        variable, _ = http_client.proxy_for(config.dreamship.base_url, os.environ)
        if variable and config.dreamship.base_url.startswith("https:"):
            error.hint += f"; the call went through the proxy of ${variable}"
        raise


def values_of_mirror(config: Config) -> Values | None:
    """Return the values that the mirror has; None if there is no filled mirror to read."""
    policy = runtime_config(config).policy
    try:
        with closing(Queries(config.mirror.path)) as queries:
            counts = Counter(queries.sold_values(policy, MAX_VALUES))
            counts.update(queries.unknown_values(policy, MAX_VALUES).named)
    except MirrorError:
        return None
    return Values(dict(counts.most_common(MAX_VALUES))) if counts else None


async def values_of_items(
    config: Config, key: Secret, page: Page, calls: int, progress: Callable[[int, int], None]
) -> Values:
    """Return the values of up to MAX_ITEMS items, with at most `calls` calls.

    An item that is gone is left out. Any other error ends the reading.
    """
    counts: Counter[str] = Counter()
    wanted = _spread(list(config.catalog.items) or [item.item_id for item in page.items])
    wanted = wanted[: max(0, calls)]
    done = 0
    async with _client(config, key) as client:
        for number, item_id in enumerate(wanted, 1):
            progress(number, len(wanted))
            try:
                item = await client.item(item_id)
            except SourceGone:
                continue
            except SourceError:
                break
            done += 1
            counts.update(variant.value for variant in item.variants or ())
    return Values(dict(counts.most_common(MAX_VALUES)), done)


def _spread(ids: list[int]) -> list[int]:
    """Return up to MAX_ITEMS ids from the whole list: neighbours are often alike."""
    step = max(1, len(ids) // MAX_ITEMS)
    return ids[::step][:MAX_ITEMS]
