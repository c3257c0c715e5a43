"""The records everything else speaks in: frozen values, no behaviour beyond what they say.

Moments are aware `datetime` in UTC. Ids are positive integers that fit SQLite's 64 bits.
`availability` is text exactly as Dreamship sent it; None stands for "gone from the catalogue".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

MAX_ID = 2**63 - 1
_DIGITS = len(str(MAX_ID))

Outcome = Literal["applied", "unchanged", "verifying", "duplicate", "ignored", "quarantined"]
OUTCOMES: tuple[Outcome, ...] = (
    "applied",
    "unchanged",
    "verifying",
    "duplicate",
    "ignored",
    "quarantined",
)
Cause = Literal["webhook", "read", "config"]
SweepResult = Literal["complete", "partial", "failed"]


class Labels(Struct, frozen=True):
    """What a variant is called; empty where Dreamship does not say."""

    name: str | None = None
    color: str | None = None
    size: str | None = None


class VariantUpdate(Struct, frozen=True):
    """What one delivery says about one variant.

    `value` None: it says that availability changed, not to what. `event_at` None: it cannot be
    placed in time. `item_id` None: it does not name its item.
    """

    variant_id: int
    item_id: int | None
    value: str | None
    event_at: datetime | None
    labels: Labels


class Mention(Struct, frozen=True):
    """What a body names without a value for it.

    `variant_ids` may have changed, and so may every variant of `unclear_item_ids`. `item_ids` are
    items to read. `is_certain`: the body is about an item variant, so an id that the mirror does
    not know is a variant to look for; else it may be the id of anything.
    """

    variant_ids: tuple[int, ...] = ()
    item_ids: tuple[int, ...] = ()
    unclear_item_ids: tuple[int, ...] = ()
    is_certain: bool = False


class Delivery(Struct, frozen=True):
    """One authentic webhook body, understood as far as it can be.

    Exactly one of three: `update` set (about a variant's availability), `quarantined` set (why it
    was not understood), or neither (authentic, about something else). `mention` is what a body
    names that was not understood or is about an item.
    """

    event_id: str
    body: bytes
    arrived_at: datetime
    action: str | None = None
    update: VariantUpdate | None = None
    quarantined: str | None = None
    mention: Mention | None = None


class SourceVariant(Struct, frozen=True):
    """One variant as a GET answered it; a missing or null `availability` is the empty text."""

    variant_id: int
    value: str
    labels: Labels


class SourceItem(Struct, frozen=True):
    """One item as a GET answered it; `variants` None when a list row did not carry them.

    A variant with two values in one answer is there twice. `is_whole` is false when a variant was
    left out because it has no usable id.
    """

    item_id: int
    name: str | None
    variants: tuple[SourceVariant, ...] | None
    is_whole: bool = True


class ItemRead(Struct, frozen=True):
    """A finished read of one item: `variants` is all it has; None means the item is gone.

    `began_at` is this host's moment before the request left; the source clock moves it back by
    the `age` of the content when a cache answered. `source_at` is the `Date` header of the answer,
    Dreamship's clock. `fresh_for` is how long the cache may go on answering the same. Not
    `is_whole`: the absence of a variant proves nothing. `is_row`: it is a row of a list, which may
    lack some variants without a trace.
    """

    item_id: int
    name: str | None
    variants: tuple[SourceVariant, ...] | None
    began_at: datetime
    source_at: datetime | None
    age: timedelta = timedelta()
    fresh_for: timedelta | None = None
    is_row: bool = False
    is_whole: bool = True


class Page(Struct, frozen=True):
    """One page of a listing; `count` is the listing's own total, None when it does not say.

    The moments are those of `ItemRead`. `broken_rows`: how many of its rows could not be read.
    """

    items: tuple[SourceItem, ...]
    count: int | None
    has_next: bool
    began_at: datetime
    source_at: datetime | None
    age: timedelta = timedelta()
    fresh_for: timedelta | None = None
    broken_rows: int = 0


JsonObject = dict[str, Any]
Row = dict[str, Any]
"""What a query answered, by its columns' names."""


def id_in(text: str) -> int | None:
    """Return the id that somebody typed, or None for anything that cannot be one."""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        return None
    number = int(text)
    return number if 0 < number <= MAX_ID else None
