"""Dreamship's GET endpoints over httpx: every answer becomes a record, every fault a leaf of ours.

Much of the other side is not documented, so unknown forms are tolerated: an answer that cannot be
what was asked teaches nothing and is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from itertools import chain
from typing import Any

import httpx
import msgspec

from syncd import __version__, lenient_json
from syncd.deliveries import availability_text, labels, name_text, parse_id
from syncd.errors import (
    SourceAnswerInvalid,
    SourceError,
    SourceGone,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
)
from syncd.lenient_json import NotJsonError, alternatives
from syncd.model import ItemRead, JsonObject, Page, SourceItem, SourceVariant
from syncd.pace import wait_in_words
from syncd.timestamps import parse_http_date

PAGE_ITEMS = 100
# An item has some hundred variants of some hundred bytes; this is a hundred times as much.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
# Of what Dreamship says about a fault; it goes into logs, the status and the history of sweeps.
MAX_SAID_CHARS = 200
MASK = b"********"
# A shorter key could be a part of any word, and masking it would change what was answered.
MIN_MASKED_CHARS = 8


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
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={
                "Authorization": f"Bearer {api_key}",
                "Accept": "application/json",
                "User-Agent": f"syncd/{__version__}",
            },
            timeout=timeout_s,
            # The key must not follow a redirect to another host; trailing slashes are ours to set.
            follow_redirects=False,
            # In the clear it goes to this host alone: no proxy of the environment gets to see it.
            trust_env=base_url.startswith("https:"),
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def item(self, item_id: int) -> ItemRead:
        """Read one item whole; raises SourceGone when there is none, else leaves of SourceError."""
        began_at = self._now()
        document, source_at = await self._get(f"items/{item_id}/")
        item = _item(document)
        if item.item_id != item_id:
            raise SourceAnswerInvalid(f"asked for item {item_id}, was told of {item.item_id}")
        if item.variants is None:
            raise SourceAnswerInvalid(f"the answer for item {item_id} has no item_variants")
        return ItemRead(
            item_id, item.name, item.variants, began_at, source_at, is_whole=item.is_whole
        )

    async def page(self, category_id: int | None, page: int) -> Page:
        """Read one page of the catalogue, or of one category; raises the leaves of SourceError."""
        began_at = self._now()
        path = "items/" if category_id is None else f"categories/{category_id}/items/"
        document, source_at = await self._get(path, {"page": page, "limit": PAGE_ITEMS})
        items, paging = document.get("data"), document.get("paging")
        if not isinstance(items, list) or not isinstance(paging, dict) or "next" not in paging:
            raise SourceAnswerInvalid(f"page {page} of {path} has no data or no paging")
        count = paging.get("count")
        has_next = paging["next"] is not None
        return Page(
            items=tuple(_item(one) for one in items),
            count=count if isinstance(count, int) and not isinstance(count, bool) else None,
            has_next=has_next,
            began_at=began_at,
            source_at=source_at,
        )

    async def _get(
        self, path: str, params: dict[str, int] | None = None
    ) -> tuple[JsonObject, datetime | None]:
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
        document = _decoded(self._without_key(body))
        if answer.status_code == httpx.codes.OK:
            if document is None:
                raise SourceAnswerInvalid(f"the answer for {path} is no JSON object")
            return document, source_at
        raise _fault(path, answer, document, self._now())

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
        return _in_short(why)


def _fault(
    path: str, answer: httpx.Response, document: JsonObject | None, now: datetime
) -> SourceError:
    status = answer.status_code
    error = (document or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    said = f": {_in_short(message)}" if isinstance(message, str) else ""
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return SourceThrottled(f"throttled on {path}{said}", wait_s=_wait_s(answer, message, now))
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return SourceRefused(
            f"Dreamship answered {status} for {path}{said}",
            hint="the api key is wrong, revoked or lacks permission; "
            "see https://app.dreamship.com/app/settings/api/",
        )
    if status == httpx.codes.NOT_FOUND and document is not None:
        # A proxy's HTML 404, or a wrong base_url, must never look like an item that is gone.
        return SourceGone(f"Dreamship has no {path}", hint="check dreamship.base_url")
    if answer.is_redirect:
        return SourceAnswerInvalid(
            f"Dreamship redirects {path} elsewhere", hint="check dreamship.base_url"
        )
    return SourceUnreachable(
        f"Dreamship answered {status} for {path}{said}", hint="usually passes by itself"
    )


def _wait_s(answer: httpx.Response, message: Any, now: datetime) -> float | None:
    header = answer.headers.get("Retry-After", "").strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    moment = parse_http_date(header)
    if moment is not None:
        # Both moments are Dreamship's; ours would bring the difference of two clocks in.
        said_at = parse_http_date(answer.headers.get("Date")) or now
        return max(0.0, (moment - said_at).total_seconds())
    return wait_in_words(message) if isinstance(message, str) else None


def _in_short(text: str) -> str:
    return " ".join(text.split())[:MAX_SAID_CHARS]


def _decoded(body: bytes) -> JsonObject | None:
    if not lenient_json.is_in_utf8(body):
        return None  # the key in it would not have been masked
    try:
        document = lenient_json.decode(body)
    except NotJsonError:
        return None
    return document if isinstance(document, dict) else None


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
