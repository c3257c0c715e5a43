"""The content of an authentic webhook body, in every form that Dreamship may send.

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

from syncd.core import lenient_json
from syncd.core.lenient_json import Conflict, NotJsonError, alternatives, names_are_unique
from syncd.core.model import MAX_ID, Delivery, JsonObject, Labels, Mention, VariantUpdate
from syncd.core.named_ids import Subject, mention_in, subject
from syncd.core.timestamps import parse_foreign

# With these two the documented `data.availability` is the news itself. Any other action on a
# variant (one that Dreamship adds tomorrow) only tells that something about it changed.
TELLING_ACTIONS = frozenset({"item-variant-availability-updated", "item-variant-added"})

# A delivery without a uuid is named after its bytes; the prefix keeps both kinds apart.
HASHED = "sha256:"

MAX_EVENT_ID_CHARS = 200

# What `syncd doctor` sends: it shows that the URL leads here, not that Dreamship delivers.
TEST_ACTION = "syncd-doctor"
# With another number of them at the top, the lenient decoder tells whether one occurs twice.
_NAMES_AT_THE_TOP = 4


class _Envelope(Struct):
    id: Any = None
    object: Any = None
    event: Any = None
    # Left unread until it is known to matter: an order's data is large, personal and not ours.
    data: Any = None


class _StrictEnvelope(_Envelope):
    data: Raw = Raw(b"null")


class _Unintelligible(Exception):
    """Why an authentic body could not be understood."""


class _Ambiguous(Exception):
    """A name occurs twice in one object, or may: the lenient decoder tells."""


_decode_envelope = msgspec.json.Decoder(_StrictEnvelope).decode
_decode_any = msgspec.json.Decoder().decode


def parse(body: bytes, arrived_at: datetime) -> Delivery:
    """Return what an authentic `body` says; never raises, whatever the bytes are."""
    try:
        try:
            return _understood(_decode_envelope(body), body, arrived_at)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _Ambiguous):
            return _understood(_leniently(body), body, arrived_at)
    except _Unintelligible as why:
        return _quarantined(body, arrived_at, str(why))


def _leniently(body: bytes) -> _Envelope:
    try:
        document = lenient_json.recover(body)
    except NotJsonError as why:
        raise _Unintelligible(f"no JSON object of the documented form: {why}") from why
    if not isinstance(document, dict):
        raise _Unintelligible("no JSON object of the documented form: another kind of value")
    for name in ("event", "data"):
        if isinstance(document.get(name), Conflict):
            raise _Unintelligible(f"it has two different values for {name}")
    return _Envelope(*(document.get(name) for name in _Envelope.__struct_fields__))


def _understood(envelope: _Envelope, body: bytes, arrived_at: datetime) -> Delivery:
    event = envelope.event if isinstance(envelope.event, dict) else {}
    actions = _texts(event.get("action"))
    objects = _texts(envelope.object), _texts(event.get("object_type"))
    about, tells, is_of_item = _about(*objects, actions)
    update = mention = None
    if about == "variant":
        update = _claim(envelope, event, _data(envelope, body), tells=tells)
    else:
        _check_names(envelope, body)
        if about == "none":
            raise _Unintelligible("it names neither an action nor an object type")
        if about == "unknown" and "availability" in _data(envelope, body):
            raise _Unintelligible("it tells an availability of an object that syncd does not know")
    if is_of_item:
        ids = {parse_id(value) for value in (event.get("object_id"), envelope.id)}
        mention = Mention(item_ids=tuple(one for one in ids if one is not None))
    return Delivery(
        event_id=_event_id(event, body),
        body=body,
        arrived_at=arrived_at,
        action=actions[0] if actions else None,
        update=update,
        mention=mention,
    )


def content_key(delivery: Delivery) -> str:
    """Return what a delivery tells, as text; with its event id it names the delivery.

    Dreamship may take "the latest data" when it sends, so a retry of one event can carry news the
    first try did not have; only a copy that tells the same is a duplicate.
    """
    if delivery.update is not None:
        value = delivery.update.value
        told = "?" if value is None else f"={value}"
        return f"{delivery.update.variant_id}{told}"
    if delivery.quarantined is not None:
        return f"!{_digest(delivery.body)}"
    return ""


def is_named_by_its_bytes(delivery: Delivery) -> bool:
    """Tell whether the sender gave no uuid, so that an equal body may be a new event."""
    return delivery.event_id.startswith(HASHED)


def _quarantined(body: bytes, arrived_at: datetime, why: str) -> Delivery:
    return Delivery(
        event_id=_event_id({}, body),
        body=body,
        arrived_at=arrived_at,
        quarantined=why[:500],
        mention=mention_in(body),
    )


def _event_id(event: JsonObject, body: bytes) -> str:
    uuid = event.get("uuid")
    if isinstance(uuid, str) and 0 < len(uuid) <= MAX_EVENT_ID_CHARS and uuid.isprintable():
        # What U+FFFD stands for may be different in another uuid.
        return HASHED + _digest(body) if "\ufffd" in uuid else uuid
    return HASHED + _digest(body)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    return tuple(one for one in alternatives(value) if isinstance(one, str) and one.strip())


@lru_cache(maxsize=64)
def _about(
    objects: tuple[str, ...], types: tuple[str, ...], actions: tuple[str, ...]
) -> tuple[Subject, bool, bool]:
    """Return what a body is about, if its availability is the news, if its ids may be an item's.

    What an item's action on its variants names, the item or a variant, is not documented.
    """
    tells = all(action.strip().lower() in TELLING_ACTIONS for action in actions)
    about = subject(objects + types, actions)
    return about, tells, about == "item" or (not tells and subject(objects + types, ()) == "item")


def _data(envelope: _Envelope, body: bytes) -> JsonObject:
    data = envelope.data
    if isinstance(data, Raw):
        data = _decode_any(data)
        known = (envelope.id, envelope.object, envelope.event, data)
        if not names_are_unique(body, known, outside=_NAMES_AT_THE_TOP):
            raise _Ambiguous
    return data if isinstance(data, dict) else {}


def _check_names(envelope: _Envelope, body: bytes) -> None:
    """Check what is read of a body that is not about a variant."""
    if isinstance(envelope.data, Raw):
        known = (envelope.id, envelope.object, envelope.event)
        unread = bytes(envelope.data).count(b":")
        if not names_are_unique(body, known, outside=_NAMES_AT_THE_TOP + unread):
            raise _Ambiguous


def _claim(
    envelope: _Envelope, event: JsonObject, data: JsonObject, *, tells: bool
) -> VariantUpdate:
    return VariantUpdate(
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
        raise _Unintelligible("a variant id in it is not one positive whole number")
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
    if isinstance(value, str):
        digits = value.strip().removeprefix("+")
        is_number = digits.isascii() and digits.isdigit()
        value = int(digits) if is_number and len(digits) <= len(str(MAX_ID)) + 2 else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID:
        return value
    return None


def availability_text(value: object) -> str | None:
    """Return availability as received; other JSON than text as compact JSON, null as None.

    Two different values are none: it changed, and it is not known to what.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Conflict):
        return None
    return msgspec.json.encode(value).decode()


def labels(data: JsonObject) -> Labels:
    """Return the names a variant object carries; any of them may be missing or of another form."""
    return Labels(
        name=name_text(data.get("name")),
        color=name_text(data.get("color")),
        size=name_text(data.get("size")),
    )


def name_text(value: object) -> str | None:
    """Return a name, or the name of an object; a number is one too, anything else is not."""
    if isinstance(value, dict):
        value = value.get("name")
    if value is None or isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else None
