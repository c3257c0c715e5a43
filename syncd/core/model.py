"""The records that all other modules use: frozen values without behaviour.

Times are aware `datetime` in UTC. Ids are positive integers that fit SQLite's 64 bits.
`availability` is text exactly as Dreamship sends it; None means "gone from the catalogue".
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


class VariantDetails(Struct, frozen=True):
    """The names and costs of a variant; None where Dreamship sends none.

    A cost is decimal text as received.
    """

    name: str | None = None
    color: str | None = None
    size: str | None = None
    cost: str | None = None
    basic_cost: str | None = None


class ItemDetails(Struct, frozen=True):
    """What a read says about an item besides its variants; None where it says nothing.

    `countries`: each country of its ship zones, once.
    """

    release_status: str | None = None
    operational_status: str | None = None
    countries: tuple[str, ...] | None = None


class VariantUpdate(Struct, frozen=True):
    """The content of one delivery about one variant.

    `value` None: the delivery reports a change without its value. `event_at` None: the event has no
    usable timestamp. `item_id` None: the delivery does not name the item.
    """

    variant_id: int
    item_id: int | None
    value: str | None
    event_at: datetime | None
    details: VariantDetails


class Mention(Struct, frozen=True):
    """The ids that a body names without a value.

    `variant_ids` may have changed, and so may every variant of `unclear_item_ids`. `item_ids` are
    items to read. `is_certain`: the body is about an item variant, so an id that the mirror does
    not have is a variant to find; otherwise it may be the id of another kind of object.
    """

    variant_ids: tuple[int, ...] = ()
    item_ids: tuple[int, ...] = ()
    unclear_item_ids: tuple[int, ...] = ()
    is_certain: bool = False


class Delivery(Struct, frozen=True):
    """One authentic webhook body, parsed as far as possible.

    Exactly one of three holds: `update` is set (the body is about a variant's availability),
    `quarantined` is set (the reason why the body was not understood), or neither is set (the body
    is about another subject). `mention` has the ids of a body that was not understood, or that is
    about an item.
    """

    event_id: str
    body: bytes
    arrived_at: datetime
    action: str | None = None
    update: VariantUpdate | None = None
    quarantined: str | None = None
    mention: Mention | None = None


class SourceVariant(Struct, frozen=True):
    """One variant in an answer to a GET; a missing or null `availability` is the empty text."""

    variant_id: int
    value: str
    details: VariantDetails


class SourceItem(Struct, frozen=True):
    """One item in an answer to a GET; `variants` None: a row of a list does not contain them.

    A variant with two values in one answer occurs twice. `is_whole` is false if a variant is left
    out because it has no usable id. `fingerprint` is that of a row of a list; None: it has none.
    """

    item_id: int
    name: str | None
    variants: tuple[SourceVariant, ...] | None
    is_whole: bool = True
    fingerprint: int | None = None
    details: ItemDetails = ItemDetails()


class ItemRead(Struct, frozen=True):
    """A finished read of one item with all its variants; `variants` None: the item is gone.

    `began_at` is this host's time before the request left; the source clock moves it back by the
    `age` of the content if a cache answered. `source_at` is the `Date` header of the answer, by
    Dreamship's clock. `fresh_for` is how long the cache may repeat the answer. If `is_whole` is
    false, the absence of a variant is no evidence. `is_row`: the read is a row of a list, which may
    lack variants without any sign of it.
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
    details: ItemDetails = ItemDetails()


class Page(Struct, frozen=True):
    """One page of a listing; `count` is the total that the listing names, None if it names none.

    The times are those of `ItemRead`. `broken_rows`: how many of its rows could not be read.
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
"""One row of a query's result, by the names of its columns."""


def id_in(text: str) -> int | None:
    """Return the id in a text that a user typed, or None if the text is no id."""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        return None
    number = int(text)
    return number if 0 < number <= MAX_ID else None
