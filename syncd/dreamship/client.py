"""Dreamship's GET endpoints over httpx: answers become records, errors become `SourceError`s.

Much of Dreamship's API is not documented, so unknown forms are tolerated. An answer that does not
fit the request changes nothing in the mirror, and the request is repeated.
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
from syncd.dreamship import answer_errors, catalogue_answers, content_coding
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
# The most bytes of an answer, compressed and decompressed. A variant has some 450 bytes: an item
# with 600 variants has 270 KB, and a page with 100 such items 27 MB. Four answers are read at a
# time, one of them a page.
MAX_ITEM_BYTES = 8 * 1024 * 1024
MAX_PAGE_BYTES = 32 * 1024 * 1024
# The most bytes of an answer other than 200; its status counts without the body, too.
MAX_ERROR_BYTES = 256 * 1024
# An answer may arrive in pieces of a few bytes. Each takes some 20 us; the event loop runs between.
MAX_PIECES = 100_000
PIECES_AT_ONCE = 64
MASK = b"********"
# A shorter key may occur in other text, and masking would change the answer.
MIN_MASKED_CHARS = 8


class _Answer(NamedTuple, Generic[T]):
    content: T
    source_at: datetime | None
    age: ContentAge


class DreamshipClient:
    """Reads one account's catalogue with one api key. Has no rate limit and no retries."""

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
        # The key itself, and the key in JSON, with or without a backslash before a slash.
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
                # A copy from a cache may be old; the second line is for caches of HTTP/1.0.
                "Cache-Control": "no-cache",
                "Pragma": "no-cache",
            },
            # Otherwise the cookies of all answers would be sent with each request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=timeout_s,
            # An unencrypted key goes to this host only, and to no proxy of the environment.
            is_direct=not base_url.startswith("https:"),
            # The key must not follow a redirect to another host. The paths have trailing slashes
            # already.
            follow_redirects=False,
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def item(self, item_id: int) -> ItemRead:
        """Read one whole item; raises SourceGone if there is none, and other SourceErrors."""
        began_at = self._now()
        path = f"items/{item_id}/"
        answer = await self._get(path, catalogue_answers.item_in, at_most=MAX_ITEM_BYTES)
        item = answer.content
        if item.item_id != item_id:
            raise SourceAnswerInvalid(f"the answer for item {item_id} is about item {item.item_id}")
        if item.variants is None:
            raise SourceAnswerInvalid(f"the answer for item {item_id} has no item_variants")
        return ItemRead(
            item_id,
            item.name,
            item.variants,
            began_at,
            answer.source_at,
            age=answer.age.age,
            fresh_for=answer.age.fresh_for,
            is_whole=item.is_whole,
            details=item.details,
        )

    async def page(self, category_id: int | None, page: int) -> Page:
        """Read one page of the catalogue, or of one category; raises SourceErrors."""
        began_at = self._now()
        path = "items/" if category_id is None else f"categories/{category_id}/items/"
        answer = await self._get(
            path,
            catalogue_answers.listing_in,
            at_most=MAX_PAGE_BYTES,
            params={"page": page, "limit": PAGE_ITEMS},
        )
        paging = answer.content.paging
        return Page(
            items=answer.content.items,
            count=pagination.believable_count(paging.get("count")),
            has_next=pagination.leads_on(paging.get("next"), page),
            began_at=began_at,
            source_at=answer.source_at,
            age=answer.age.age,
            fresh_for=answer.age.fresh_for,
            broken_rows=answer.content.broken_rows,
        )

    async def _get(
        self,
        path: str,
        find: Callable[[bytearray], T],
        *,
        at_most: int,
        params: dict[str, int] | None = None,
    ) -> _Answer[T]:
        """Return the result of `find` for the answer of `path`, which may have `at_most` bytes."""
        try:
            # httpx limits each step of a call; slow bytes could keep every step within its limit.
            async with asyncio.timeout(self._timeout_s):
                body, answer = await self._fetch(path, params, at_most)
        except SourceAnswerInvalid as error:
            raise _with_path(path, error) from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise SourceUnreachable(
                f"Dreamship did not answer {path} within {self._timeout_s:g} s",
                hint="check the network; raise dreamship.timeout_seconds if it is slow",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceUnreachable(
                f"Dreamship could not be reached for {path}: {self._error_text(error)}",
                hint="check the network and dreamship.base_url",
            ) from error
        source_at = parse_http_date(answer.headers.get("Date"))
        age = content_age(answer.headers.get_list)
        encoded = answer.headers.get_list("Content-Encoding")
        if answer.status_code == httpx.codes.OK:
            work = partial(self._content, body, encoded, at_most, find)
            try:
                return _Answer(await self._in_thread(work), source_at, age)
            except BeyondBoundsError as error:
                raise SourceAnswerInvalid(f"the answer for {path} {error}") from error
            except NotJsonError as error:
                raise SourceAnswerInvalid(f"the answer for {path} is no JSON object") from error
            except SourceAnswerInvalid as error:
                raise _with_path(path, error) from error
        document = await self._in_thread(partial(self._document, body, encoded))
        status, headers = answer.status_code, answer.headers
        error_of_answer = answer_errors.error_of(path, status, headers, document, self._now())
        raise _with_age(error_of_answer, source_at, age)

    async def _fetch(
        self, path: str, params: dict[str, int] | None, at_most: int
    ) -> tuple[bytearray, httpx.Response]:
        """Return the body of an answer without decompressing it."""
        async with self._client.stream("GET", path, params=params) as answer:
            is_error = answer.status_code != httpx.codes.OK
            if not is_error:
                # A coding that was not requested ends the request before the body arrives.
                coding_of(answer.headers.get_list("Content-Encoding"))
            body, pieces = bytearray(), 0
            async for piece in answer.aiter_raw():
                body += piece
                pieces += 1
                if is_error and len(body) > MAX_ERROR_BYTES:
                    break
                if len(body) > at_most:
                    raise too_long(at_most)
                if pieces > MAX_PIECES:
                    raise SourceAnswerInvalid(
                        f"the answer arrives in more than {MAX_PIECES:,} pieces"
                    )
                if pieces % PIECES_AT_ONCE == 0:
                    await asyncio.sleep(0)
            return body, answer

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, in a thread; one at a time, as each needs memory twice."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(work)

    def _content(
        self,
        body: bytearray,
        encoded: Sequence[str],
        at_most: int,
        find: Callable[[bytearray], T],
    ) -> T:
        return find(self._without_key(decoded(body, coding_of(encoded), at_most=at_most)))

    def _document(self, body: bytearray, encoded: Sequence[str]) -> JsonObject | None:
        """Return the object in an answer other than 200, or None if it has none."""
        try:
            plain = decoded(body, coding_of(encoded), at_most=MAX_ERROR_BYTES)
        except SourceAnswerInvalid:
            return None
        return catalogue_answers.object_in(self._without_key(plain))

    def _without_key(self, text: bytearray) -> bytearray:
        """Mask the api key in an answer: it is the only secret in there."""
        for echo in self._echoes:
            if echo in text:
                text = text.replace(echo, MASK)
        return text

    def _error_text(self, error: Exception) -> str:
        """Return a short text for an error of the network; it may quote an answer."""
        text = (str(error) or type(error).__name__).encode()
        return answer_errors.in_short(self._without_key(bytearray(text)).decode())


def _with_path(path: str, error: SourceAnswerInvalid) -> SourceAnswerInvalid:
    """Return an error with the path of the request."""
    return SourceAnswerInvalid(f"{path}: {error.message}", hint=error.hint)


def _with_age(error: SourceError, source_at: datetime | None, age: ContentAge) -> SourceError:
    """Return an error with the age of its answer; a copy does not show if the key is valid now."""
    if isinstance(error, SourceGone):
        error.source_at, error.age, error.fresh_for = source_at, age.age, age.fresh_for
    elif isinstance(error, SourceRefused) and age.age:
        hint = "exempt dreamship.base_url from caching in the proxy that this host uses"
        return SourceUnreachable(f"a cache repeats: {error.message}", hint=hint)
    return error
