"""Limits the parts of a request besides its body: head, trailers, and the framing of chunks."""

from __future__ import annotations

from http import HTTPStatus

from msgspec import json

# The most bytes of a head that arrives in several reads; Dreamship's heads have some 600 bytes.
# Also of the trailers of a body, and of the framing of its chunks.
MAX_HEAD_BYTES = 64 * 1024
# httptools parses no longer target. A head in a single read may be longer than MAX_HEAD_BYTES.
MAX_TARGET_BYTES = 65_535
# The most small chunks of the bodies that wait for an answer on one connection. Each chunk costs
# some function calls, so more chunks must have this many bytes on average.
MAX_SMALL_CHUNKS = 1024
SMALL_CHUNK_BYTES = 64


class RequestRefusedError(Exception):
    """A request is refused while it arrives; raised in the parser, it stops the parser at once."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def refusal(code: int, reason: str) -> bytes:
    """Return the last answer on a connection."""
    body = json.encode({"error": reason})
    lines = [
        b"HTTP/1.1 %d %b" % (code, HTTPStatus(code).phrase.encode()),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
        *([b"retry-after: 30"] if code == HTTPStatus.SERVICE_UNAVAILABLE else []),
    ]
    return b"\r\n".join([*lines, b"", body])


class Framing:
    """Counts the bytes of one request after the other on one connection."""

    __slots__ = (
        "_bodies_at",
        "_chunk_at",
        "_chunks",
        "_framing",
        "_head",
        "_is_new",
        "_trailers",
        "body",
    )

    def __init__(self) -> None:
        # The bytes of all bodies.
        self.body = 0
        self._head = 0
        self._framing = 0
        self._trailers = 0
        self._chunks = 0
        # The begin of the first body that waits for an answer.
        self._bodies_at = 0
        # The begin of the chunk that arrives now.
        self._chunk_at = -1
        # Whether the head or the body began during this read.
        self._is_new = False

    def begin_head(self) -> None:
        """Count a new head."""
        self._head = 0
        self._is_new = True

    def begin_body(self, *, is_first: bool) -> None:
        """Count a new body; `is_first`: no earlier request on this connection waits."""
        self._framing = self._trailers = 0
        self._is_new = True
        if is_first:
            self._chunks = 0
            self._bodies_at = self.body

    def add_chunk(self) -> None:
        """Count a chunk that begins; raises RequestRefusedError."""
        self._chunk_at = self.body
        self._chunks += 1
        if self._chunks > MAX_SMALL_CHUNKS:
            allowed = MAX_SMALL_CHUNKS + (self.body - self._bodies_at) // SMALL_CHUNK_BYTES
            if self._chunks > allowed:
                raise RequestRefusedError(413, "a body in too many small chunks")

    def add_trailer(self, name: bytes, value: bytes) -> None:
        """Count a trailer; raises RequestRefusedError."""
        self._trailers += len(name) + len(value) + 4
        if self._trailers > MAX_HEAD_BYTES:
            raise RequestRefusedError(431, "the trailers of a body are too large")

    def end_read(self, received: int, of_bodies: int, *, is_head: bool) -> None:
        """Count a read after which the request is incomplete; raises RequestRefusedError."""
        if self._is_new:
            self._is_new = False
        elif is_head:
            self._head += received
            if self._head > MAX_HEAD_BYTES:
                raise RequestRefusedError(431, "the head of a request is too large")
        else:
            self._framing += received - of_bodies
            if self._framing > MAX_HEAD_BYTES:
                if self._chunk_at == self.body:
                    raise RequestRefusedError(431, "the trailers of a body are too large")
                raise RequestRefusedError(413, "a body is mostly framing")
