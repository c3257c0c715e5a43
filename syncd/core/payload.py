"""Parses authentic webhook bodies, in every form that Dreamship may send.

No authentic body is refused. A body that cannot be understood is quarantined whole. A body about
another subject is ignored. A body that reports a change without its value causes a read.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from syncd.core import lenient_json
from syncd.core.lenient_json import Conflict, NotJsonError, alternatives, names_are_unique
from syncd.core.model import MAX_ID, Delivery, JsonObject, Mention, VariantDetails, VariantUpdate
from syncd.core.named_ids import Subject, mention_in, subject
from syncd.core.timestamps import parse_foreign

# With these two actions, `data.availability` is the new value, as documented. Any other action on a
# variant (Dreamship may add some) only reports that the variant changed.
VALUE_ACTIONS = frozenset({"item-variant-availability-updated", "item-variant-added"})

# The hash of its bytes identifies a delivery without a uuid; the prefix distinguishes both kinds.
HASHED = "sha256:"

MAX_EVENT_ID_CHARS = 200
MAX_COST_CHARS = 40
_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")

# The action of the test by `syncd doctor`: it shows that the URL works, not that deliveries come.
TEST_ACTION = "syncd-doctor"
# With another number of names at the top, the lenient decoder finds out if one occurs twice.
_NAMES_AT_THE_TOP = 4


class _Envelope(Struct):
    id: Any = None
    object: Any = None
    event: Any = None
    # Decoded only if needed: the data of an order is large and personal, and not for syncd.
    data: Any = None


class _StrictEnvelope(_Envelope):
    data: Raw = Raw(b"null")


class _NotUnderstood(Exception):
    """The reason why an authentic body was not understood."""


class _Ambiguous(Exception):
    """A name occurs twice in one object, or may do so: the lenient decoder decides."""


_decode_envelope = msgspec.json.Decoder(_StrictEnvelope).decode
_decode_any = msgspec.json.Decoder().decode


def parse(body: bytes, arrived_at: datetime) -> Delivery:
    """Return the content of an authentic `body`; never raises, for any bytes."""
    try:
        try:
            return _understood(_decode_envelope(body), body, arrived_at)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _Ambiguous):
            return _understood(_leniently(body), body, arrived_at)
    except _NotUnderstood as why:
        return _quarantined(body, arrived_at, str(why))


def _leniently(body: bytes) -> _Envelope:
    try:
        document = lenient_json.recover(body)
    except NotJsonError as why:
        raise _NotUnderstood(f"no JSON object of the documented form: {why}") from why
    if not isinstance(document, dict):
        raise _NotUnderstood("no JSON object of the documented form: another kind of value")
    for name in ("event", "data"):
        if isinstance(document.get(name), Conflict):
            raise _NotUnderstood(f"it has two different values for {name}")
    return _Envelope(*(document.get(name) for name in _Envelope.__struct_fields__))


def _understood(envelope: _Envelope, body: bytes, arrived_at: datetime) -> Delivery:
    event = envelope.event if isinstance(envelope.event, dict) else {}
    actions = _texts(event.get("action"))
    objects = _texts(envelope.object), _texts(event.get("object_type"))
    about, has_value, is_of_item = _about(*objects, actions)
    update = mention = None
    if about == "variant":
        update = _update(envelope, event, _data(envelope, body), has_value=has_value)
    else:
        _check_names(envelope, body)
        if about == "none":
            raise _NotUnderstood("it names neither an action nor an object type")
        if about == "unknown" and "availability" in _data(envelope, body):
            raise _NotUnderstood("it has an availability of an object that syncd does not know")
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
    """Return the content of a delivery as text; with the event id it identifies the delivery.

    Dreamship may send "the latest data", so a retry of one event can contain a newer value than the
    first attempt. Only a copy with the same content is a duplicate.
    """
    if delivery.update is not None:
        value = delivery.update.value
        content = "?" if value is None else f"={value}"
        return f"{delivery.update.variant_id}{content}"
    if delivery.quarantined is not None:
        return f"!{_digest(delivery.body)}"
    return ""


def is_named_by_its_bytes(delivery: Delivery) -> bool:
    """Return whether the delivery has no uuid, so that an equal body may be a new event."""
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
        # U+FFFD may replace different bytes in another uuid.
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
    """Return the subject, whether the availability is the new value, and whether ids may be items.

    Dreamship does not document whether the id of an item's action on variants is the item's.
    """
    has_value = all(action.strip().lower() in VALUE_ACTIONS for action in actions)
    about = subject(objects + types, actions)
    is_of_item = about == "item" or (not has_value and subject(objects + types, ()) == "item")
    return about, has_value, is_of_item


def _data(envelope: _Envelope, body: bytes) -> JsonObject:
    data = envelope.data
    if isinstance(data, Raw):
        data = _decode_any(data)
        known = (envelope.id, envelope.object, envelope.event, data)
        if not names_are_unique(body, known, outside=_NAMES_AT_THE_TOP):
            raise _Ambiguous
    return data if isinstance(data, dict) else {}


def _check_names(envelope: _Envelope, body: bytes) -> None:
    """Check the names of a body that is not about a variant."""
    if isinstance(envelope.data, Raw):
        known = (envelope.id, envelope.object, envelope.event)
        unread = bytes(envelope.data).count(b":")
        if not names_are_unique(body, known, outside=_NAMES_AT_THE_TOP + unread):
            raise _Ambiguous


def _update(
    envelope: _Envelope, event: JsonObject, data: JsonObject, *, has_value: bool
) -> VariantUpdate:
    return VariantUpdate(
        variant_id=_agreed_id(data.get("id"), event.get("object_id"), envelope.id),
        item_id=_item_id(data),
        value=availability_text(data.get("availability")) if has_value else None,
        event_at=parse_foreign(event.get("timestamp")),
        details=variant_details(data),
    )


def _agreed_id(*candidates: object) -> int:
    named = [candidate for candidate in candidates if candidate is not None]
    ids = {parse_id(candidate) for candidate in named}
    if not named:
        raise _NotUnderstood("it names no variant: data.id, event.object_id and id are missing")
    if None in ids:
        raise _NotUnderstood("a variant id in it is not one positive whole number")
    if len(ids) > 1:
        raise _NotUnderstood("data.id, event.object_id and id name different variants")
    return ids.pop()  # type: ignore[return-value]  # None was excluded above


def _item_id(data: JsonObject) -> int | None:
    item = data.get("item")
    named = {
        parse_id(item.get("id") if isinstance(item, dict) else item),
        parse_id(data.get("item_id")),
    } - {None}
    # Two different ids count as none: the mirror or the catalogue has the right one.
    return named.pop() if len(named) == 1 else None


def parse_id(value: object) -> int | None:
    """Return an id from a number or from digits, or None if it is neither or out of range."""
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

    Two different values count as none: the new value is unknown.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Conflict):
        return None
    return msgspec.json.encode(value).decode()


def variant_details(data: JsonObject) -> VariantDetails:
    """Return names and costs in a variant object; any may be missing or have another form."""
    return VariantDetails(
        name=name_text(data.get("name")),
        color=name_text(data.get("color")),
        size=name_text(data.get("size")),
        cost=cost_text(data.get("cost")),
        basic_cost=cost_text(data.get("basic_cost")),
    )


def cost_text(value: object) -> str | None:
    """Return a cost, which is decimal text or a number, as decimal text; None for other values.

    A number loses zeros at its end: JSON does not keep them.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = str(value) if is_number else value.strip() if isinstance(value, str) else ""
    return text if len(text) <= MAX_COST_CHARS and _DECIMAL.fullmatch(text) else None


def name_text(value: object) -> str | None:
    """Return a name, or the name of an object; a number is a name too, other values are not."""
    if isinstance(value, dict):
        value = value.get("name")
    if value is None or isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else None
