"""What does this authentic webhook body say? Every form of dreamship-api.md, decided purely.

Nothing authentic is ever refused: what cannot be understood is quarantined whole, what is about
something else is ignored, and what says "it changed" without saying to what asks the source.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from syncd.model import MAX_ID, Claim, Delivery, JsonObject, Labels
from syncd.timestamps import parse_foreign

# With these two the documented `data.availability` is the news itself. Any other action on a
# variant (one that Dreamship adds tomorrow) only tells that something about it changed.
TELLING_ACTIONS = frozenset({"item-variant-availability-updated", "item-variant-added"})

# A delivery without a uuid is named after its bytes; the prefix keeps both kinds apart.
HASHED = "sha256:"

MAX_EVENT_ID_CHARS = 200

# What `syncd doctor` sends: it shows that the URL leads here, not that Dreamship delivers.
TEST_ACTION = "syncd-doctor"


class _Envelope(Struct):
    id: Any = None
    object: Any = None
    event: Any = None
    # Left unread until it is known to matter: an order's data is large, personal and not ours.
    data: Raw = Raw(b"null")


class _Unintelligible(Exception):
    """Why an authentic body could not be understood."""


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_any = msgspec.json.Decoder().decode


def parse(body: bytes, arrived_at: datetime) -> Delivery:
    """Return what an authentic `body` says; never raises, whatever the bytes are."""
    try:
        envelope = _decode_envelope(body)
        event = envelope.event if isinstance(envelope.event, dict) else {}
        action = event.get("action")
        action = action if isinstance(action, str) and action.strip() else None
        event_id = _event_id(event, body)
        if not _is_about_a_variant(envelope, event, action):
            return Delivery(event_id=event_id, body=body, arrived_at=arrived_at, action=action)
        claim = _claim(envelope, event, action)
    except _Unintelligible as why:
        return _quarantined(body, arrived_at, str(why))
    except (msgspec.DecodeError, UnicodeDecodeError) as why:
        return _quarantined(body, arrived_at, f"no JSON object of the documented form: {why}")
    except RecursionError:
        return _quarantined(body, arrived_at, "nested deeper than any documented object")
    return Delivery(event_id=event_id, body=body, arrived_at=arrived_at, action=action, claim=claim)


def dedupe_key(delivery: Delivery) -> str:
    """Return what a delivery tells, as text; with its event id it names the delivery.

    Dreamship may take "the latest data" when it sends, so a retry of one event can carry news the
    first try did not have; only a copy that tells the same is a duplicate.
    """
    if delivery.claim is not None:
        value = delivery.claim.value
        told = "?" if value is None else f"={value}"
        return f"{delivery.claim.variant_id}{told}"
    if delivery.quarantined is not None:
        return f"!{_digest(delivery.body)}"
    return ""


def is_named_by_its_bytes(delivery: Delivery) -> bool:
    """Tell whether the sender gave no uuid, so that an equal body may be a new event."""
    return delivery.event_id.startswith(HASHED)


def _quarantined(body: bytes, arrived_at: datetime, why: str) -> Delivery:
    return Delivery(
        event_id=_event_id({}, body), body=body, arrived_at=arrived_at, quarantined=why[:500]
    )


def _event_id(event: JsonObject, body: bytes) -> str:
    uuid = event.get("uuid")
    if isinstance(uuid, str) and 0 < len(uuid) <= MAX_EVENT_ID_CHARS and uuid.isprintable():
        return uuid
    return HASHED + _digest(body)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _is_about_a_variant(envelope: _Envelope, event: JsonObject, action: str | None) -> bool:
    named = (envelope.object, event.get("object_type"))
    kinds = [_squeezed(kind) for kind in named if isinstance(kind, str) and kind.strip()]
    if action is not None and _squeezed(action).startswith("itemvariant"):
        return True
    if action is None and not kinds:
        raise _Unintelligible("it names neither an action nor an object type")
    return "itemvariant" in kinds


def _claim(envelope: _Envelope, event: JsonObject, action: str | None) -> Claim:
    data = _decode_any(envelope.data)
    data = data if isinstance(data, dict) else {}
    tells = action is None or action.strip().lower() in TELLING_ACTIONS
    return Claim(
        variant_id=_agreed_id(data.get("id"), event.get("object_id"), envelope.id),
        item_id=_item_id(data),
        value=availability_text(data.get("availability")) if tells else None,
        event_at=parse_foreign(event.get("timestamp")),
        labels=labels(data),
    )


def _agreed_id(*candidates: object) -> int:
    named = [candidate for candidate in candidates if candidate is not None]
    ids = {parse_id(candidate) for candidate in named}
    if not named:
        raise _Unintelligible("it names no variant: data.id, event.object_id and id are missing")
    if None in ids:
        raise _Unintelligible("a variant id in it is not a positive whole number")
    if len(ids) > 1:
        raise _Unintelligible("data.id, event.object_id and id name different variants")
    return ids.pop()  # type: ignore[return-value]  # None was excluded above


def _item_id(data: JsonObject) -> int | None:
    item = data.get("item")
    named = {
        parse_id(item.get("id") if isinstance(item, dict) else item),
        parse_id(data.get("item_id")),
    } - {None}
    # Two different answers are no answer: the mirror or the catalogue knows.
    return named.pop() if len(named) == 1 else None


def parse_id(value: object) -> int | None:
    """Return an id given as a number or as digits, or None when it is neither or out of range."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value) if len(value) <= len(str(MAX_ID)) + 2 else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID:
        return value
    return None


def availability_text(value: object) -> str | None:
    """Return availability as received; other JSON than text as compact JSON, null as None."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def labels(data: JsonObject) -> Labels:
    """Return the names a variant object carries; any of them may be missing or of another form."""
    return Labels(
        name=_name(data.get("name")), color=_name(data.get("color")), size=_name(data.get("size"))
    )


def _name(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("name")
    return value if isinstance(value, str) else None


@lru_cache(maxsize=64)
def _squeezed(text: str) -> str:
    """Return letters only: `item_variant`, `item-variant` and `ItemVariant` are one kind."""
    return "".join(filter(str.isalpha, text)).lower()
