"""A number that is equal for equal rows of a list. Pure."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from syncd.core.model import JsonObject

_encode = msgspec.json.Encoder(order="sorted").encode
_URL_SCHEMES = ("http://", "https://")


def fingerprint(row: JsonObject) -> int | None:
    """Return a number of 64 bits; None if the row cannot be compared.

    The order of names does not matter, and neither do the parameters of a URL: a signed URL of an
    image has new ones in each answer.
    """
    try:
        text = _encode(_without_parameters(row))
    except (TypeError, ValueError, RecursionError):
        return None
    return int.from_bytes(blake2b(text, digest_size=8).digest(), signed=True)


def _without_parameters(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_parameters(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_parameters(one) for one in value]
    if isinstance(value, str) and value.startswith(_URL_SCHEMES):
        return value.partition("?")[0]
    return value
