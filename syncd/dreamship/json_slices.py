"""Reads one JSON object piece by piece, so that a large one is never decoded as a whole.

A decoder written in C stops all other threads until it has decoded the document. This reader skips
values that are not needed and decodes one small piece at a time, so that no step takes long. A
piece may have every form that `lenient_json` accepts. In skipped values, only the quotation marks
and brackets are checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from syncd.core import lenient_json
from syncd.core.lenient_json import NotJsonError

# The most brackets, at any depth, and visited members and elements. A page of 100 items with 560
# variants each has 250,000.
MAX_PIECES = 1_000_000
# The most bytes of one decoded value. A variant has some 450 bytes.
MAX_PIECE_BYTES = 64 * 1024
MAX_DEPTH = 1000

# One step of a regular expression covers at most this many bytes: less than a millisecond.
_STEP_BYTES = 64 * 1024
# All text up to the next bracket, with whole strings. No group is possessive: up to Python 3.11.4
# such a group retains the text of its last, failed repetition (gh-106052).
_FLAT = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*"[^"\[\]{}]*+)*', re.DOTALL)
_IN_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*', re.DOTALL)
_SCALAR = re.compile(rb'[^,:"\[\]{}]*+')
_BLANK = re.compile(rb"[ \t\r\n]*+")
_AROUND = re.compile(rb"[\0\x1a \t\r\n\f\v]*+")
_BOM = b"\xef\xbb\xbf"
_STRUCTURE = (b"{", b"}", b"[", b"]", b'"')
_QUOTE, _COLON, _COMMA = ord('"'), ord(":"), ord(",")
_OBJECT, _LIST = ord("{"), ord("[")
_CLOSERS = {_OBJECT: ord("}"), _LIST: ord("]")}


class BeyondBoundsError(NotJsonError):
    """A document exceeds a bound of this reader; the message is the end of a sentence."""


class TooLargeError(BeyondBoundsError):
    """One value is too large to be decoded; the values after it can still be read."""


class JsonSlices:
    """Reads the one object in `body` (UTF-8) from its beginning to its end, once.

    `members` and `elements` visit the content of the value at the cursor. At each of them the
    caller calls `value`, or visits the content of that value, or skips it by doing nothing. All
    methods raise NotJsonError for invalid JSON, and BeyondBoundsError beyond a bound.
    """

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        self._at = 0
        self._open = bytearray()
        self._left = MAX_PIECES

    def document(self) -> Iterator[str]:
        """Visit the members of the document, which is one object."""
        self._run(_AROUND)
        if self._body.startswith(_BOM, self._at):
            self._at += len(_BOM)
            self._run(_AROUND)
        if not self.is_at_object():
            raise NotJsonError("no object")
        yield from self.members()
        if any(self._body.find(one, self._at) >= 0 for one in _STRUCTURE):
            raise NotJsonError("more than one document")

    def is_at_list(self) -> bool:
        """Return whether the value at the cursor is a list."""
        return self._is_at(_LIST)

    def is_at_object(self) -> bool:
        """Return whether the value at the cursor is an object."""
        return self._is_at(_OBJECT)

    def members(self) -> Iterator[str]:
        """Visit the members of the object at the cursor; yields each name, also a repeated one."""
        self._enter()
        is_open = not self._ends()
        while is_open:
            if not self._is_at(_QUOTE):
                raise NotJsonError("a member without a name")
            began_at = self._at
            self.skip()
            name = lenient_json.decode_part(self._cut(began_at))
            self._run(_BLANK)
            if not self._is_at(_COLON):
                raise NotJsonError("a name without a value")
            self._at += 1
            self._run(_BLANK)
            before = self._at, len(self._open)
            self._spend()
            yield name
            is_open = self._goes_on(*before)

    def elements(self) -> Iterator[int]:
        """Visit the elements of the list at the cursor; yields 1 for the first, then 2."""
        self._enter()
        number, is_open = 0, not self._ends()
        while is_open:
            number += 1
            before = self._at, len(self._open)
            self._spend()
            yield number
            is_open = self._goes_on(*before)

    def value(self) -> Any:
        """Return the value at the cursor; after a TooLargeError the next value can be read."""
        began_at = self._at
        self.skip()
        return self.since(began_at)

    @property
    def at(self) -> int:
        """The position of the cursor."""
        return self._at

    def since(self, began_at: int) -> Any:
        """Return the value that was visited between `began_at` and the cursor."""
        if self._at - began_at > MAX_PIECE_BYTES:
            raise TooLargeError(f"has a value of more than {MAX_PIECE_BYTES:,} bytes")
        return lenient_json.decode_part(self._cut(began_at))

    def skip(self) -> None:
        """Skip the value at the cursor."""
        began_at, outside = self._at, len(self._open)
        if self._byte() in _CLOSERS:
            self._enter()
            self._leave(outside)
        elif self._is_at(_QUOTE):
            self._pass_text()
        else:
            self._run(_SCALAR)
        if self._at == began_at:
            raise NotJsonError("a value is missing")

    def _goes_on(self, began_at: int, depth: int) -> bool:
        """Skip the rest of the visited value; return whether another value follows."""
        if len(self._open) > depth:
            self._leave(depth)
        elif self._at == began_at:
            self.skip()
        if self._ends():
            return False
        if not self._is_at(_COMMA):
            raise NotJsonError("two values without a comma")
        self._at += 1
        self._run(_BLANK)
        return True

    def _ends(self) -> bool:
        """Close the innermost list or object if it ends here."""
        self._run(_BLANK)
        if not self._is_at(self._open[-1]):
            return False
        self._close()
        return True

    def _leave(self, outside: int) -> None:
        """Skip the rest of the open lists and objects, until only `outside` are open."""
        while len(self._open) > outside:
            self._run(_FLAT)
            if self._byte() in _CLOSERS:
                self._enter()
            elif self._is_at(_QUOTE):
                self._pass_text()  # a text longer than one step
            else:
                self._close()

    def _enter(self) -> None:
        self._spend()
        self._open.append(_CLOSERS[self._byte()])
        if len(self._open) > MAX_DEPTH:
            raise NotJsonError("nested deeper than any documented object")
        self._at += 1

    def _close(self) -> None:
        if not self._is_at(self._open[-1]):
            raise NotJsonError("a bracket without its counterpart")
        self._open.pop()
        self._at += 1

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise BeyondBoundsError(f"has more than {MAX_PIECES:,} values")

    def _pass_text(self) -> None:
        self._at += 1
        self._run(_IN_TEXT)
        while not self._is_at(_QUOTE):
            self._at += 2  # a step ended inside an escape sequence
            self._run(_IN_TEXT)
        self._at += 1

    def _run(self, pattern: re.Pattern[bytes]) -> None:
        """Skip the text that matches, of any length."""
        while True:
            stop = self._at + _STEP_BYTES
            found = pattern.match(self._body, self._at, stop)
            if found is not None:
                self._at = found.end()
            if self._at < stop:
                return

    def _cut(self, began_at: int) -> bytes:
        return bytes(self._body[began_at : self._at])

    def _is_at(self, byte: int) -> bool:
        return self._byte() == byte

    def _byte(self) -> int:
        try:
            return self._body[self._at]
        except IndexError:
            raise NotJsonError("cut short") from None
