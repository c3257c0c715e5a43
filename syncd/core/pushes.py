"""Pushes of the change feed: the position of each push, and the content of a batch.

A push takes each change in the order of the feed. A push without a valid position gets a full copy
first: a row for each variant, in the order of their ids, in batches marked `full`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.model import MAX_ID, JsonObject, Row
from syncd.core.plain_text import json_text

# There may be other sources later; a receiver of several mirrors distinguishes them by it.
SOURCE = "default"
# As the end of a pending batch: the last one of a full copy, without rows.
END = MAX_ID


class Cursor(Struct, frozen=True):
    """The position of a push.

    All changes up to `seq` are taken. `copied`: the last variant of a full copy that is taken, 0 at
    its beginning; None: there is no copy. `pending`: the end of the batch that is being sent, a seq
    or a variant id. It is stored before the batch is sent, so that a repetition after a crash is
    the same batch. `run` counts the full copies and the positions set by an operator, so that no
    batch has the id of an earlier one. `mirror`, `only` and `listings` (the version of the SKUs)
    describe the feed that the position belongs to.
    """

    name: str
    mirror: str
    only: str
    listings: int
    run: int
    seq: int
    copied: int | None = None
    pending: int | None = None

    @property
    def after(self) -> int:
        """The end of the batch before the pending one."""
        return self.seq if self.copied is None else self.copied

    @property
    def taken(self) -> Cursor:
        """The position after the pending batch."""
        assert self.pending is not None  # noqa: S101 - for mypy
        if self.copied is None:
            return replace(self, seq=self.pending, pending=None)
        copied = None if self.pending == END else self.pending
        return replace(self, copied=copied, pending=None)

    @property
    def message_id(self) -> str:
        """The id of the pending batch: the same at each repetition."""
        kind = "changes" if self.copied is None else "copy"
        key = f"{self.mirror}/{self.name}/{self.run}/{kind}/{self.after}/{self.pending}"
        return f"msg_{sha256(key.encode()).hexdigest()[:32]}"


class Step(Struct, frozen=True):
    """The next batch of a push; `changes` None: there is nothing to send.

    `cursor` has the batch as `pending`; without a batch it is past the changes that this push does
    not get.
    """

    cursor: Cursor
    changes: list[Row] | None = None

    def document(self) -> JsonObject:
        """Return the body of the batch."""
        cursor = self.cursor
        document: dict[str, Any] = {"source": SOURCE, "mirror": cursor.mirror}
        document["full"] = cursor.copied is not None
        if cursor.copied is not None:
            document |= {"begin": cursor.copied == 0, "end": cursor.pending == END}
        return document | {"changes": self.changes or []}

    def body(self) -> bytes:
        """Return the batch as JSON, for a URL."""
        return json_text(self.document()).encode()

    def lines(self) -> bytes:
        """Return the batch as JSON lines, for a command: the batch, then each change."""
        changes = self.changes or []
        head = {"id": self.cursor.message_id} | self.document() | {"changes": len(changes)}
        return "".join(f"{json_text(one)}\n" for one in (head, *changes)).encode()


def test_body(mirror: str | None) -> bytes:
    """Return the body of a test message, which changes nothing."""
    head: JsonObject = {"source": SOURCE, "mirror": mirror, "full": False, "test": True}
    return json_text(head | {"changes": []}).encode()
