"""Decodes JSON of other programs: strictly if it is well formed, else leniently.

A price that is NaN or half an emoji in a name makes a document invalid, but the ids and the
availability in it are still good. The lenient decoder accepts a byte order mark, UTF-16 and UTF-32,
gzip, bytes that are no UTF-8, lone surrogates, control characters in a text, NaN and Infinity,
numbers of any length, text after the document, one object in a list, and a document that was
encoded twice. All text in the result can be written as UTF-8.

Two different values under one name in one object are a `Conflict`: parsers differ in which value
counts, so neither counts.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import Struct

from syncd.core.model import JsonObject

# The most bytes of a decompressed body; a usual delivery has some hundred.
MAX_UNPACKED_BYTES = 1024 * 1024
# Python refuses to convert longer numbers, and no id or price needs them.
MAX_DIGITS = 1000
MAX_CONFLICTING = 20
# Documented objects have four levels. Python's own limit differs between its versions: some 1,000
# levels in 3.11, and 10,000 in 3.13, where other code that reads the value fails.
MAX_LEVELS = 100

_TOO_DEEP = "nested deeper than any documented object"
_GZIP = b"\x1f\x8b"
_BLANK = "\ufeff\0\x1a \t\r\n\f\v\u00a0"
_STRUCTURE = frozenset('{}[]"')
# An unterminated text reaches to the end of the document: each byte is read once.
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = re.compile(r"[^][{}]+")
_LONE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_decode_strictly = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class NotJsonError(Exception):
    """The reason why no decoder accepts a document."""


class Conflict(Struct, frozen=True):
    """Different values under one name in one object."""

    values: tuple[Any, ...]


def decode(body: bytes) -> Any:
    """Return the document in `body`; raises NotJsonError."""
    _require_few_levels_in(body)
    try:
        document = _decode_strictly(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return recover(body)
    return document if names_are_unique(body, document) else recover(body)


def decode_part(part: bytes) -> Any:
    """Return one value that was cut out of a document in UTF-8; raises NotJsonError."""
    _require_few_levels_in(part)
    try:
        value = _decode_strictly(part)
        if names_are_unique(part, value):
            return value
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # the lenient decoder decides
    text = part.decode(errors="replace").strip(_BLANK)
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError as error:
        raise NotJsonError(str(error)) from error
    if end < len(text):
        raise NotJsonError("text after a value")
    return _cleaned(value) if _SURROGATE_ESCAPE.search(text) else value


def recover(body: bytes) -> Any:
    """Return the document in `body`, by the lenient decoder; raises NotJsonError."""
    try:
        return _unwrapped(_decoded(text_of(body)))
    except ValueError as error:
        raise NotJsonError(str(error)) from error


def names_are_unique(body: bytes, document: Any, *, outside: int = 0) -> bool:
    """Return whether strict decoding of `body` to `document` dropped no repeated name.

    Each member has one colon. If a name was dropped, the encoded document has fewer colons than the
    body. `outside` counts the colons of `body` that are no part of `document`. A colon can also be
    an escape sequence; the lenient decoder reads such a body.
    """
    if b"\\u003a" in body or b"\\u003A" in body:
        return False
    return body.count(b":") == outside + _encode(document).count(b":")


def alternatives(value: Any) -> tuple[Any, ...]:
    """Return the values of a conflict, or the value itself."""
    return value.values if isinstance(value, Conflict) else (value,)


def text_of(body: bytes) -> str:
    """Return a body as text, with U+FFFD for each invalid byte."""
    if body.startswith(_GZIP):
        body = _unpacked(body)
    text = body.decode(json.detect_encoding(body), errors="replace")
    return text.strip(_BLANK)


def is_in_utf8(body: bytes | bytearray) -> bool:
    """Return whether a body is plain UTF-8: not compressed, and not in UTF-16 or UTF-32."""
    return json.detect_encoding(body).startswith("utf-8") and not body.startswith(_GZIP)


def _unpacked(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error:
        return body


def _require_few_levels_in(body: bytes) -> None:
    # Few brackets mean few levels. No usual delivery has more, and counting is cheap.
    if body.count(b"[") + body.count(b"{") > MAX_LEVELS:
        _require_few_levels(body.decode(errors="replace"))


def _require_few_levels(text: str) -> None:
    brackets = _NO_BRACKETS.sub("", _TEXT.sub("", text))
    levels = accumulate(1 if one in "[{" else -1 for one in brackets)
    if max(levels, default=0) > MAX_LEVELS:
        raise NotJsonError(_TOO_DEEP)


def _decoded(text: str) -> Any:
    _require_few_levels(text)
    document, end = _DECODER.raw_decode(text)
    # If the rest contains structure, it is a misplaced part of the document or a second document.
    # The decoded part alone may then not have the meaning of the whole.
    if not _STRUCTURE.isdisjoint(text[end:]):
        raise ValueError(f"more than one document: the first ends at character {end}")
    return _cleaned(document) if _SURROGATE_ESCAPE.search(text) else document


def _unwrapped(document: Any) -> Any:
    if isinstance(document, str):
        document = _decoded(document.strip(_BLANK))
    if isinstance(document, list) and len(document) == 1:
        return document[0]
    return document


def _cleaned(value: Any) -> Any:
    """Replace lone surrogates, which UTF-8 and so the database cannot represent."""
    if isinstance(value, str):
        return _LONE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_LONE.sub("\ufffd", name): _cleaned(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, Conflict):
        return Conflict(tuple(_cleaned(one) for one in value.values))
    return value


def _object(members: list[tuple[str, Any]]) -> JsonObject:
    found = dict(members)
    if len(found) == len(members):
        return found
    by_name: dict[str, list[Any]] = {}
    for name, value in members:
        by_name.setdefault(name, []).append(value)
    return {name: agreed(values) for name, values in by_name.items()}


def agreed(values: Iterable[Any]) -> Any:
    """Return the value of one name if all values are equal, else a Conflict."""
    different: list[Any] = []
    for value in values:
        if value not in different and len(different) < MAX_CONFLICTING:
            different.append(value)
    return different[0] if len(different) == 1 else Conflict(tuple(different))


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= MAX_DIGITS else text


def _number(text: str) -> float | str:
    number = float(text)
    return number if abs(number) != float("inf") else text


# NaN and Infinity stay text: a NaN is not equal even to itself.
_DECODER = json.JSONDecoder(
    strict=False,
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_number,
    parse_constant=str,
)
