"""Turns the bytes of an answer into items and pages, within bounds. Pure.

A small answer is decoded as a whole, a large one in slices (`json_slices`); the result is the same.
Each bound is far above any real answer. An answer beyond a bound is invalid. A row beyond a bound
is listed without its variants, like the rows of some lists: its item is read by itself.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from syncd.core import lenient_json
from syncd.core.fingerprint import fingerprint
from syncd.core.item_details import item_details
from syncd.core.lenient_json import NotJsonError, agreed, alternatives
from syncd.core.model import JsonObject, SourceItem, SourceVariant
from syncd.core.payload import availability_text, name_text, parse_id, variant_details
from syncd.dreamship.json_slices import JsonSlices, TooLargeError
from syncd.errors import SourceAnswerInvalid

# The most bytes that are decoded at once. It takes some 10 ms, in which no other thread runs.
MAX_WHOLE_BYTES = 256 * 1024
# A shirt in 70 colours and 8 sizes has 560 variants.
MAX_VARIANTS = 10_000
# A request is for 100 rows, but a list may ignore that and show all its rows.
MAX_ROWS = 10_000
# For all rows of a page together: 100 shirts have 56,000.
MAX_VARIANTS_OF_PAGE = 100_000


# The parts of an item that `item_details` reads; too large, they count as missing.
_DETAILS = {"release_status", "operational_status", "ship_zones"}


class Listing(Struct, frozen=True):
    """One page of an answer; `broken_rows` is the number of its unreadable rows."""

    items: tuple[SourceItem, ...]
    broken_rows: int
    paging: JsonObject


class _TooManyVariants(Exception):
    """An item has more variants than the limit."""


def item_in(body: bytearray, *, whole_bytes: int = MAX_WHOLE_BYTES) -> SourceItem:
    """Return the item in an answer; raises NotJsonError and SourceAnswerInvalid.

    A body longer than `whole_bytes` is decoded in slices.
    """
    _require_utf8(body)
    try:
        if len(body) <= whole_bytes:
            item = _item_of(_whole(body), MAX_VARIANTS)
        else:
            slices = JsonSlices(body)
            item = _item_in(slices, slices.document(), MAX_VARIANTS)
    except _TooManyVariants:
        raise SourceAnswerInvalid(f"an item has more than {MAX_VARIANTS:,} variants") from None
    if item is None:
        raise SourceAnswerInvalid("an item in the answer has no usable id")
    return item


def listing_in(body: bytearray, *, whole_bytes: int = MAX_WHOLE_BYTES) -> Listing:
    """Return the page in an answer; raises NotJsonError and SourceAnswerInvalid.

    A body longer than `whole_bytes` is decoded in slices.
    """
    _require_utf8(body)
    if len(body) <= whole_bytes:
        document = _whole(body)
        data, paging = document.get("data"), document.get("paging")
        rows = _rows_of(data) if isinstance(data, list) else None
    else:
        rows, paging = _page_in(JsonSlices(body))
    if rows is None or not isinstance(paging, dict):
        raise SourceAnswerInvalid("a page has no data or no paging")
    items = tuple(row for row in rows if row is not None)
    if rows and not items:
        raise SourceAnswerInvalid("no row of a page can be read")
    return Listing(items, len(rows) - len(items), paging)


def object_in(body: bytearray) -> JsonObject | None:
    """Return the object in an answer other than 200; None if it has none, or a large one."""
    if len(body) > MAX_WHOLE_BYTES:
        return None
    try:
        _require_utf8(body)
        return _whole(body)
    except NotJsonError:
        return None


def _require_utf8(body: bytearray) -> None:
    if not lenient_json.is_in_utf8(body):
        raise NotJsonError("the key in it would not have been masked")


def _whole(body: bytearray) -> JsonObject:
    document = lenient_json.decode(bytes(body))
    if not isinstance(document, dict):
        raise NotJsonError("no object")
    return document


# Rows


class _Room:
    """The number of variants that the next row of a page may have."""

    def __init__(self) -> None:
        self._left = MAX_VARIANTS_OF_PAGE

    @property
    def of_row(self) -> int:
        return min(MAX_VARIANTS, self._left)

    def take(self, row: SourceItem | None) -> None:
        if row is not None and row.variants is not None:
            self._left -= len(row.variants)


def _rows_of(data: list[Any]) -> list[SourceItem | None]:
    _require_rows(len(data))
    rows, room = list[SourceItem | None](), _Room()
    for document in data:
        try:
            row = _item_of(document, room.of_row)
        except _TooManyVariants:
            row = _item_of(document | {"item_variants": None}, 0)
        room.take(row)
        rows.append(None if row is None else replace(row, fingerprint=fingerprint(document)))
    return rows


def _page_in(slices: JsonSlices) -> tuple[list[SourceItem | None] | None, Any]:
    lists = list[list[SourceItem | None] | None]()
    pagings = list[Any]()
    for name in slices.document():
        if name == "data":
            lists.append(_rows_in(slices) if slices.is_at_list() else None)
        elif name == "paging":
            pagings.append(slices.value())
    # A name that occurs twice is ambiguous.
    return lists[0] if len(lists) == 1 else None, agreed(pagings) if pagings else None


def _rows_in(slices: JsonSlices) -> list[SourceItem | None]:
    rows, room = list[SourceItem | None](), _Room()
    for number in slices.elements():
        _require_rows(number)
        row = _row_in(slices, room.of_row) if slices.is_at_object() else None
        room.take(row)
        rows.append(row)
    return rows


def _require_rows(number: int) -> None:
    if number > MAX_ROWS:
        raise SourceAnswerInvalid(f"a page has more than {MAX_ROWS:,} rows")


def _row_in(slices: JsonSlices, most: int) -> SourceItem | None:
    began_at = slices.at
    try:
        row = _item_in(slices, slices.members(), most, is_row=True)
    except TooLargeError:
        return None
    return None if row is None else replace(row, fingerprint=_fingerprint_in(slices, began_at))


def _fingerprint_in(slices: JsonSlices, began_at: int) -> int | None:
    """Return the same fingerprint as for a row of a small page; None for a very large row."""
    try:
        document = slices.since(began_at)
    except (TooLargeError, NotJsonError):
        return None
    return fingerprint(document) if isinstance(document, dict) else None


# Items


def _item_of(document: Any, most: int) -> SourceItem | None:
    """Return the item of a document; None if it has no usable id."""
    if not isinstance(document, dict):
        return None
    listed = document.get("item_variants")
    if not isinstance(listed, list):
        return _item(document, None)
    if len(listed) > most:
        raise _TooManyVariants
    return _item(document, map(_variant, listed))


def _item_in(
    slices: JsonSlices, members: Iterator[str], most: int, *, is_row: bool = False
) -> SourceItem | None:
    """Return the item of an object that is read in slices; a row may lose its variants."""
    named = defaultdict[str, list[Any]](list)
    lists = list[list[list[SourceVariant]] | None]()
    for name in members:
        if name == "item_variants":
            lists.append(None)
            if slices.is_at_list():
                try:
                    lists[-1] = _variants_in(slices, most)
                except _TooManyVariants:
                    if not is_row:
                        raise
        elif name in {"id", "name"}:
            named[name].append(slices.value())
        elif name in _DETAILS:
            with contextlib.suppress(TooLargeError):
                named[name].append(slices.value())
    document = {name: agreed(values) for name, values in named.items()}
    # A name that occurs twice is ambiguous.
    return _item(document, lists[0] if len(lists) == 1 else None)


def _variants_in(slices: JsonSlices, most: int) -> list[list[SourceVariant]]:
    variants = []
    for number in slices.elements():
        if number > most:
            raise _TooManyVariants
        try:
            variants.append(_variant(slices.value()))
        except TooLargeError:
            variants.append([])
    return variants


def _item(document: JsonObject, listed: Iterable[list[SourceVariant]] | None) -> SourceItem | None:
    item_id, name = parse_id(document.get("id")), name_text(document.get("name"))
    if item_id is None:
        return None
    details = item_details(document)
    if listed is None:
        return SourceItem(item_id, name, None, details=details)
    variants, is_whole = list[SourceVariant](), True
    for one in listed:
        variants += one
        is_whole = is_whole and bool(one)
    return SourceItem(item_id, name, tuple(variants), is_whole=is_whole, details=details)


def _variant(document: Any) -> list[SourceVariant]:
    """Return a variant once for each of its values; none if it has no usable id."""
    variant_id = parse_id(document.get("id")) if isinstance(document, dict) else None
    if variant_id is None:
        return []
    details = variant_details(document)
    values = map(availability_text, alternatives(document.get("availability")))
    return [SourceVariant(variant_id, value or "", details) for value in values]
