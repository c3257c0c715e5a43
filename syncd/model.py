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


class Claim(Struct, frozen=True):
    """What one delivery says about one variant.

    `value` None: it says that availability changed, not to what. `event_at` None: it cannot be
    placed in time. `item_id` None: it does not name its item.
    """

    variant_id: int
    item_id: int | None
    value: str | None
    event_at: datetime | None
    labels: Labels


class Delivery(Struct, frozen=True):
    """One authentic webhook body, understood as far as it can be.

    Exactly one of three: `claim` set (about a variant's availability), `quarantined` set (why it
    was not understood), or neither (authentic, about something else).
    """

    event_id: str
    body: bytes
    arrived_at: datetime
    action: str | None = None
    claim: Claim | None = None
    quarantined: str | None = None


class SourceVariant(Struct, frozen=True):
    """One variant as a GET answered it; a missing or null `availability` is the empty text."""

    variant_id: int
    value: str
    labels: Labels


class SourceItem(Struct, frozen=True):
    """One item as a GET answered it; `variants` None when a list row did not carry them."""

    item_id: int
    name: str | None
    variants: tuple[SourceVariant, ...] | None


class ItemRead(Struct, frozen=True):
    """A finished read of one item: `variants` is all it has; None means the item is gone.

    `began_at` is this host's moment before the request left; the source clock moves it back by
    the `age` of the content when a cache answered. `source_at` is the `Date` header of the answer,
    Dreamship's clock. `fresh_for` is how long the cache may go on answering the same. `is_whole`
    False: `variants` may lack some, so a variant that is absent from it proves nothing.
    """

    item_id: int
    name: str | None
    variants: tuple[SourceVariant, ...] | None
    began_at: datetime
    source_at: datetime | None
    age: timedelta = timedelta()
    fresh_for: timedelta | None = None
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
