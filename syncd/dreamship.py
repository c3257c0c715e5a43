"""Dreamship's GET endpoints over httpx: every answer becomes a record, every fault a leaf of ours.

Much of the other side is not documented, so unknown forms are tolerated: an answer that cannot be
what was asked teaches nothing and is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import chain
from typing import Any, NamedTuple

import httpx
import msgspec

from syncd import __version__, answer_faults, http_client, lenient_json, listing
from syncd.deliveries import availability_text, labels, name_text, parse_id
from syncd.errors import (
    SourceAnswerInvalid,
    SourceError,
    SourceGone,
    SourceRefused,
    SourceUnreachable,
)
from syncd.lenient_json import NotJsonError, alternatives
from syncd.model import ItemRead, JsonObject, Page, SourceItem, SourceVariant
from syncd.read_age import ToldAge, told_age
from syncd.timestamps import parse_http_date

PAGE_ITEMS = 100
# An item has some hundred variants of some hundred bytes; this is a hundred times as much.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MASK = b"********"
# A shorter key could be a part of any word, and masking it would change what was answered.
MIN_MASKED_CHARS = 8


class _Answer(NamedTuple):
    document: JsonObject
    source_at: datetime | None
    told: ToldAge


class Dreamship:
    """Reads one account's catalogue with one api key. Neither paces nor retries."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float,
        now: Callable[[], datetime],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._now = now
        self._timeout_s = timeout_s
        # As it is, and as JSON writes it, with or without a stroke before a slash.
        in_json = msgspec.json.encode(api_key)[1:-1]
        echoes = {api_key.encode(), in_json, in_json.replace(b"/", rb"\/")}
        self._echoes = echoes if len(api_key) >= MIN_MASKED_CHARS else set()
        self._client = http_client.async_client(
            base_url,
            base_url=base_url.rstrip("/") + "/",
            headers={
                "Authorization": f"Bearer {api_key}",
                "Accept": "application/json",
                "User-Agent": f"syncd/{__version__}",
                # A copy from a cache is no news; the second line is for caches of HTTP/1.0.
                "Cache-Control": "no-cache",
                "Pragma": "no-cache",
            },
            # Cookies of answers would be sent with each request, more and more of them.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=timeout_s,
            # In the clear it goes to this host alone: no proxy of the environment gets to see it.
            is_direct=not base_url.startswith("https:"),
            # The key must not follow a redirect to another host; trailing slashes are ours to set.
            follow_redirects=False,
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def item(self, item_id: int) -> ItemRead:
        """Read one item whole; raises SourceGone when there is none, else leaves of SourceError."""
        began_at = self._now()
        answer = await self._get(f"items/{item_id}/")
        item = _item(answer.document)
        if item.item_id != item_id:
            raise SourceAnswerInvalid(f"asked for item {item_id}, was told of {item.item_id}")
        if item.variants is None:
            raise SourceAnswerInvalid(f"the answer for item {item_id} has no item_variants")
        return ItemRead(
            item_id,
            item.name,
            item.variants,
            began_at,
            answer.source_at,
            age=answer.told.age,
            fresh_for=answer.told.fresh_for,
            is_whole=item.is_whole,
        )

    async def page(self, category_id: int | None, page: int) -> Page:
        """Read one page of the catalogue, or of one category; raises the leaves of SourceError."""
        began_at = self._now()
        path = "items/" if category_id is None else f"categories/{category_id}/items/"
        answer = await self._get(path, {"page": page, "limit": PAGE_ITEMS})
        rows, paging = answer.document.get("data"), answer.document.get("paging")
        if not isinstance(rows, list) or not isinstance(paging, dict):
            raise SourceAnswerInvalid(f"page {page} of {path} has no data or no paging")
        count = paging.get("count")
        items = [item for item in map(_row, rows) if item is not None]
        if rows and not items:
            raise SourceAnswerInvalid(f"no row of page {page} of {path} can be read")
        return Page(
            items=tuple(items),
            count=count if isinstance(count, int) and not isinstance(count, bool) else None,
            has_next=listing.leads_on(paging.get("next"), page),
            began_at=began_at,
            source_at=answer.source_at,
            age=answer.told.age,
            fresh_for=answer.told.fresh_for,
            broken_rows=len(rows) - len(items),
        )

    async def _get(self, path: str, params: dict[str, int] | None = None) -> _Answer:
        try:
            # httpx limits each step of a call; a drip of bytes would make every step in time.
            async with asyncio.timeout(self._timeout_s):
                body, answer = await self._fetch(path, params)
        except (httpx.TimeoutException, TimeoutError) as fault:
            raise SourceUnreachable(
                f"Dreamship did not answer {path} within {self._timeout_s:g} s",
                hint="check the network; raise dreamship.timeout_seconds if it is slow",
            ) from fault
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            raise SourceUnreachable(
                f"Dreamship could not be reached for {path}: {self._why(fault)}",
                hint="check the network and dreamship.base_url",
            ) from fault
        source_at = parse_http_date(answer.headers.get("Date"))
        told = told_age(answer.headers.get_list)
        document = _decoded(self._without_key(body))
        if answer.status_code == httpx.codes.OK:
            if document is None:
                raise SourceAnswerInvalid(f"the answer for {path} is no JSON object")
            return _Answer(document, source_at, told)
        status, headers = answer.status_code, answer.headers
        raise _dated(
            answer_faults.fault(path, status, headers, document, self._now()), source_at, told
        )

    async def _fetch(
        self, path: str, params: dict[str, int] | None
    ) -> tuple[bytes, httpx.Response]:
        async with self._client.stream("GET", path, params=params) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise SourceAnswerInvalid(f"the answer for {path} does not end")
            return bytes(body), answer

    def _without_key(self, told: bytes) -> bytes:
        """Mask what repeats our own key: nothing of an answer is secret anywhere else."""
        for echo in self._echoes:
            told = told.replace(echo, MASK)
        return told

    def _why(self, fault: Exception) -> str:
        """Return a fault of the network in a few words; what is no HTTP may be quoted in it."""
        why = self._without_key((str(fault) or type(fault).__name__).encode()).decode()
        return answer_faults.in_short(why)


def _dated(fault: SourceError, source_at: datetime | None, told: ToldAge) -> SourceError:
    """Return a fault with the age of its answer; no copy says whether the key is valid now."""
    if isinstance(fault, SourceGone):
        fault.source_at, fault.age, fault.fresh_for = source_at, told.age, told.fresh_for
    elif isinstance(fault, SourceRefused) and told.age:
        hint = "exempt dreamship.base_url from caching in the proxy that this host uses"
        return SourceUnreachable(f"a cache repeats: {fault.message}", hint=hint)
    return fault


def _decoded(body: bytes) -> JsonObject | None:
    if not lenient_json.is_in_utf8(body):
        return None  # the key in it would not have been masked
    try:
        document = lenient_json.decode(body)
    except NotJsonError:
        return None
    return document if isinstance(document, dict) else None


def _row(document: Any) -> SourceItem | None:
    """Return a row of a list, None when it cannot be read: the other rows count all the same."""
    try:
        return _item(document)
    except SourceAnswerInvalid:
        return None


def _item(document: Any) -> SourceItem:
    """Return an item; raises SourceAnswerInvalid when it has no usable id."""
    item_id = parse_id(document.get("id")) if isinstance(document, dict) else None
    if item_id is None:
        raise SourceAnswerInvalid("an item in the answer has no usable id")
    name, listed = name_text(document.get("name")), document.get("item_variants")
    if not isinstance(listed, list):
        return SourceItem(item_id, name, None)
    variants = [_variant(one) for one in listed]
    return SourceItem(item_id, name, tuple(chain.from_iterable(variants)), is_whole=all(variants))


def _variant(document: Any) -> list[SourceVariant]:
    """Return a variant once for each value that it has; none when it has no usable id."""
    variant_id = parse_id(document.get("id")) if isinstance(document, dict) else None
    if variant_id is None:
        return []
    named = labels(document)
    values = map(availability_text, alternatives(document.get("availability")))
    return [SourceVariant(variant_id, value or "", named) for value in values]
