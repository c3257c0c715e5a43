"""Decodes the body of an answer, in the requested codings and into bounded memory. Pure.

A library that decodes by itself decompresses a whole received chunk at once, and applies each
coding that an answer names: several codings turned 5 KB into gigabytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

from syncd.errors import SourceAnswerInvalid

Coding = Literal["identity", "gzip"]

# The `Accept-Encoding` header of a request.
ACCEPTED = "gzip"

_GZIP_WBITS = 31
_STEP_BYTES = 64 * 1024
_MAX_NAME_CHARS = 40


def coding_of(values: Sequence[str]) -> Coding:
    """Return the one coding that the `Content-Encoding` lines of an answer name.

    Raises SourceAnswerInvalid for every other coding and for more than one.
    """
    named = [name.strip().lower() for value in values for name in value.split(",")]
    named = [name for name in named if name]
    if len(named) > 1:
        raise SourceAnswerInvalid(f"the answer is encoded {len(named)} times", hint=_HINT)
    if not named or named == ["identity"]:
        return "identity"
    if named == ["gzip"]:
        return "gzip"
    name = named[0][:_MAX_NAME_CHARS]
    raise SourceAnswerInvalid(f"the answer is encoded as {name!r}, not as gzip", hint=_HINT)


def decoded(body: bytearray, coding: Coding, *, at_most: int) -> bytearray:
    """Return a body without its coding, never more than `at_most` bytes.

    Raises SourceAnswerInvalid if the body is longer, damaged or truncated, or if data follows it.
    """
    if coding == "identity":
        if len(body) > at_most:
            raise too_long(at_most)
        return body
    unpacking, found = zlib.decompressobj(wbits=_GZIP_WBITS), bytearray()
    for began_at in range(0, len(body), _STEP_BYTES):
        if unpacking.eof:
            break
        step = bytes(body[began_at : began_at + _STEP_BYTES])
        try:
            # One byte above the limit shows that the body is too long; 0 would mean no limit.
            found += unpacking.decompress(step, at_most + 1 - len(found))
        except zlib.error as error:
            raise SourceAnswerInvalid(f"the answer is no gzip: {error}") from error
        if len(found) > at_most:
            raise too_long(at_most)
    else:
        began_at = len(body)
    if not unpacking.eof:
        raise SourceAnswerInvalid("the answer is truncated: its gzip has no end")
    if unpacking.unused_data or began_at < len(body):
        raise SourceAnswerInvalid("the answer goes on after the end of its gzip")
    return found


def too_long(at_most: int) -> SourceAnswerInvalid:
    """Return the error for an answer with more bytes than the limit."""
    return SourceAnswerInvalid(f"the answer has more than {at_most:,} bytes")


_HINT = "check the proxy between here and Dreamship: it applies a coding that was not requested"
