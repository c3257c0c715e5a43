"""Dreamship's GET endpoints over httpx: every answer becomes a record, every fault a leaf of ours.

Much of the other side is not documented, so unknown forms are tolerated: an answer that cannot be
what was asked teaches nothing and is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Generic, NamedTuple, TypeVar

import httpx
import msgspec

from syncd import __version__, http_client
from syncd.core import pagination
from syncd.core.lenient_json import NotJsonError
from syncd.core.model import ItemRead, JsonObject, Page
from syncd.core.read_age import ContentAge, content_age
from syncd.core.timestamps import parse_http_date
from syncd.dreamship import answer_faults, catalogue_answers, content_coding
from syncd.dreamship.content_coding import coding_of, decoded, too_long
from syncd.dreamship.json_slices import BeyondBoundsError
from syncd.errors import (
    SourceAnswerInvalid,
    SourceError,
    SourceGone,
    SourceRefused,
    SourceUnreachable,
)

T = TypeVar("T")

PAGE_ITEMS = 100
# As it was sent, and decoded. A variant has some 450 bytes: an item with 600 of them has 270 KB,
# and a page with 100 such items 27 MB. Answers are read four at a time, one of them a page.
MAX_ITEM_BYTES = 8 * 1024 * 1024
MAX_PAGE_BYTES = 32 * 1024 * 1024
# Of an answer about a fault, whose status counts all the same.
MAX_FAULT_BYTES = 256 * 1024
# An answer may arrive in chunks of a few bytes. Each takes some 20 us; other work is done between.
MAX_PIECES = 100_000
PIECES_AT_ONCE = 64
MASK = b"********"
# A shorter key could be a part of any word, and masking it would change what was answered.
MIN_MASKED_CHARS = 8


class _Answer(NamedTuple, Generic[T]):
    found: T
    source_at: datetime | None
    told: ContentAge


class DreamshipClient:
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
        self._one_at_a_time = asyncio.Lock()
        self._echoes = echoes if len(api_key) >= MIN_MASKED_CHARS else set()
        self._client = http_client.async_client(
            base_url,
            base_url=base_url.rstrip("/") + "/",
            headers={
                "Authorization": f"Bearer {api_key}",
                "Accept": "application/json",
                "Accept-Encoding": content_coding.ACCEPTED,
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
        path = f"items/{item_id}/"
        answer = await self._get(path, catalogue_answers.item_in, at_most=MAX_ITEM_BYTES)
        item = answer.found
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
        answer = await self._get(
            path,
            catalogue_answers.listing_in,
            at_most=MAX_PAGE_BYTES,
            params={"page": page, "limit": PAGE_ITEMS},
        )
        paging = answer.found.paging
        return Page(
            items=answer.found.items,
            count=pagination.believable_count(paging.get("count")),
            has_next=pagination.leads_on(paging.get("next"), page),
            began_at=began_at,
            source_at=answer.source_at,
            age=answer.told.age,
            fresh_for=answer.told.fresh_for,
            broken_rows=answer.found.broken_rows,
        )

    async def _get(
        self,
        path: str,
        find: Callable[[bytearray], T],
        *,
        at_most: int,
        params: dict[str, int] | None = None,
    ) -> _Answer[T]:
        """Return what `find` finds in the answer for `path`, which may have `at_most` bytes."""
        try:
            # httpx limits each step of a call; a drip of bytes would make every step in time.
            async with asyncio.timeout(self._timeout_s):
                body, answer = await self._fetch(path, params, at_most)
        except SourceAnswerInvalid as fault:
            raise _named(path, fault) from fault
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
        told = content_age(answer.headers.get_list)
        encoded = answer.headers.get_list("Content-Encoding")
        if answer.status_code == httpx.codes.OK:
            work = partial(self._found, body, encoded, at_most, find)
            try:
                return _Answer(await self._aside(work), source_at, told)
            except BeyondBoundsError as fault:
                raise SourceAnswerInvalid(f"the answer for {path} {fault}") from fault
            except NotJsonError as fault:
                raise SourceAnswerInvalid(f"the answer for {path} is no JSON object") from fault
            except SourceAnswerInvalid as fault:
                raise _named(path, fault) from fault
        document = await self._aside(partial(self._document, body, encoded))
        status, headers = answer.status_code, answer.headers
        raise _dated(
            answer_faults.fault(path, status, headers, document, self._now()), source_at, told
        )

    async def _fetch(
        self, path: str, params: dict[str, int] | None, at_most: int
    ) -> tuple[bytearray, httpx.Response]:
        """Return the body of an answer as it was sent, in any coding."""
        async with self._client.stream("GET", path, params=params) as answer:
            is_fault = answer.status_code != httpx.codes.OK
            if not is_fault:
                # What was not asked for is not waited for either.
                coding_of(answer.headers.get_list("Content-Encoding"))
            body, pieces = bytearray(), 0
            async for piece in answer.aiter_raw():
                body += piece
                pieces += 1
                if is_fault and len(body) > MAX_FAULT_BYTES:
                    break
                if len(body) > at_most:
                    raise too_long(at_most)
                if pieces > MAX_PIECES:
                    raise SourceAnswerInvalid(
                        f"the answer comes in more than {MAX_PIECES:,} pieces"
                    )
                if pieces % PIECES_AT_ONCE == 0:
                    await asyncio.sleep(0)
            return body, answer

    async def _aside(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, done in a thread; one answer at a time is in memory twice."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(work)

    def _found(
        self,
        body: bytearray,
        encoded: Sequence[str],
        at_most: int,
        find: Callable[[bytearray], T],
    ) -> T:
        return find(self._without_key(decoded(body, coding_of(encoded), at_most=at_most)))

    def _document(self, body: bytearray, encoded: Sequence[str]) -> JsonObject | None:
        """Return the object in an answer about a fault; the status counts without one, too."""
        try:
            plain = decoded(body, coding_of(encoded), at_most=MAX_FAULT_BYTES)
        except SourceAnswerInvalid:
            return None
        return catalogue_answers.object_in(self._without_key(plain))

    def _without_key(self, told: bytearray) -> bytearray:
        """Mask what repeats our own key: nothing of an answer is secret anywhere else."""
        for echo in self._echoes:
            if echo in told:
                told = told.replace(echo, MASK)
        return told

    def _why(self, fault: Exception) -> str:
        """Return a fault of the network in a few words; what is no HTTP may be quoted in it."""
        why = self._without_key(bytearray((str(fault) or type(fault).__name__).encode())).decode()
        return answer_faults.in_short(why)


def _named(path: str, fault: SourceAnswerInvalid) -> SourceAnswerInvalid:
    """Return a fault with the path that was asked for."""
    return SourceAnswerInvalid(f"{path}: {fault.message}", hint=fault.hint)


def _dated(fault: SourceError, source_at: datetime | None, told: ContentAge) -> SourceError:
    """Return a fault with the age of its answer; no copy says whether the key is valid now."""
    if isinstance(fault, SourceGone):
        fault.source_at, fault.age, fault.fresh_for = source_at, told.age, told.fresh_for
    elif isinstance(fault, SourceRefused) and told.age:
        hint = "exempt dreamship.base_url from caching in the proxy that this host uses"
        return SourceUnreachable(f"a cache repeats: {fault.message}", hint=hint)
    return fault
