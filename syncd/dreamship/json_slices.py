"""One JSON object read piece by piece: a large one is never all Python objects at once.

A decoder written in C stops every other thread until its document is whole. This reader steps over
values that nobody needs and decodes one small piece at a time, and no single step takes long. A
piece may be as badly written as `lenient_json` allows. Of values that are stepped over, only the
quotation marks and brackets are checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from syncd.core import lenient_json
from syncd.core.lenient_json import NotJsonError

# Brackets of any depth, and members and elements that are visited one by one. A page of 100 items
# with 560 variants each has 250,000.
MAX_PIECES = 1_000_000
# Of one value that is decoded. A variant has some 450 bytes.
MAX_PIECE_BYTES = 64 * 1024
MAX_DEPTH = 1000

# One step of a regular expression covers this much: less than a millisecond.
_STEP_BYTES = 64 * 1024
# Everything up to the next bracket, whole texts included. No group is possessive: up to Python
# 3.11.4 such a group keeps what its last, failed repetition has consumed (gh-106052).
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
    """Which bound of this reader a document passes, as the end of a sentence."""


class TooLargeError(BeyondBoundsError):
    """One value is too large to be decoded; what follows it can be read all the same."""


class JsonSlices:
    """Reads the one object in `body` (UTF-8) from its beginning to its end, once.

    `members` and `elements` visit what is inside the value at the cursor. At each of them the
    caller takes its `value`, visits what is inside it, or does nothing: then it is stepped over.
    All methods raise NotJsonError for what is no JSON, and BeyondBoundsError past a bound.
    """

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        self._at = 0
        self._open = bytearray()
        self._left = MAX_PIECES

    def document(self) -> Iterator[str]:
        """Visit the members of the object that the document is."""
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
        """Tell whether the value at the cursor is a list."""
        return self._is_at(_LIST)

    def is_at_object(self) -> bool:
        """Tell whether the value at the cursor is an object."""
        return self._is_at(_OBJECT)

    def members(self) -> Iterator[str]:
        """Visit the members of the object at the cursor; gives each name, also a repeated one."""
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
        """Visit the elements of the list at the cursor; gives 1 for the first, then 2."""
        self._enter()
        number, is_open = 0, not self._ends()
        while is_open:
            number += 1
            before = self._at, len(self._open)
            self._spend()
            yield number
            is_open = self._goes_on(*before)

    def value(self) -> Any:
        """Return the value at the cursor; raises TooLargeError, and then the next can be read."""
        began_at = self._at
        self.skip()
        if self._at - began_at > MAX_PIECE_BYTES:
            raise TooLargeError(f"has a value of more than {MAX_PIECE_BYTES:,} bytes")
        return lenient_json.decode_part(self._cut(began_at))

    def skip(self) -> None:
        """Step over the value at the cursor."""
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
        """Step over what is left of the value that was visited; tell whether another follows."""
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
        """Step over the rest of what is open, until only `outside` are."""
        while len(self._open) > outside:
            self._run(_FLAT)
            if self._byte() in _CLOSERS:
                self._enter()
            elif self._is_at(_QUOTE):
                self._pass_text()  # it does not fit into one step
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
            self._at += 2  # a step has ended inside an escape sequence
            self._run(_IN_TEXT)
        self._at += 1

    def _run(self, pattern: re.Pattern[bytes]) -> None:
        """Step over what matches, however long it is."""
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
