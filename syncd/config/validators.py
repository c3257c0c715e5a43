"""The constraints that settings declare for keys, and their descriptions for people.

A check returns the value to use, or raises ValueError with a reason, which follows the name of the
key. No message repeats text: the text may be an api key in the wrong place.
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta, Struct

from syncd.config.types import MAX_SOCKET_PATH_BYTES, Address, parse_duration

Id = Annotated[int, Meta(ge=1, le=2**63 - 1, description="an id, a whole number above 0")]
Text = Annotated[
    # No command can contain a NUL.
    str, Meta(pattern=r"^[^\0]*[^\0\s][^\0]*$", description="text, not empty and without NUL")
]


class Masked(Enum):
    """The part of a value that may be secret and that is never shown."""

    ARGUMENTS = auto()
    PATH = auto()
    QUERY = auto()


class Between(Struct, frozen=True):
    """The shortest and the longest duration that a key takes."""

    shortest: str
    longest: str = "3650d"

    def __call__(self, value: timedelta) -> timedelta:
        """Require a duration of this range."""
        if not parse_duration(self.shortest) <= value <= parse_duration(self.longest):
            raise ValueError(f"must be from {self.shortest} to {self.longest}")
        return value


def describe(kind: Any) -> str:
    """Return the values that a declared type takes, as people write them."""
    base, *metadata = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    for meta in metadata:
        if isinstance(meta, Between):
            return f"a duration from {meta.shortest} to {meta.longest}"
        if isinstance(meta, Meta):
            return meta.description or _describe_range(base, meta)
    if base is bool:
        return "true or false"
    if get_origin(base) is Literal:
        return f"one of {', '.join(get_args(base))}"
    options = get_args(base) or (base,)
    name = "an address" if Address in options else "a path" if Path in options else "text"
    return f"{name}, or empty" if type(None) in options else name


def _describe_range(base: Any, meta: Meta) -> str:
    if base is int:
        return f"a whole number from {meta.ge} to {meta.le}"
    return f"a number above {meta.gt}, at most {meta.le}"


def check_not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    """Require at least one entry."""
    if not value:
        raise ValueError("is empty; name at least one value")
    return value


def check_unique(value: tuple[int, ...]) -> tuple[int, ...]:
    """Require that no id occurs twice."""
    repeated = sorted({entry for entry in value if value.count(entry) > 1})
    if repeated:
        raise ValueError(f"names {', '.join(map(str, repeated))} more than once")
    return value


def check_socket_path(value: Path) -> Path:
    """Require a path that fits into the address of a unix socket."""
    if len(str(value).encode(errors="replace")) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a socket's path")
    return value


def check_base_url(value: str) -> str:
    """Require https, or http to this host only, because each call carries the api key."""
    url = _url(value)
    if url.query or url.fragment or url.username is not None or url.password is not None:
        raise ValueError("must have no user, query or fragment")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError("must be https, or the api key travels unencrypted")
    return value.rstrip("/")


def check_url(value: str) -> str:
    """Require an http or https address, or empty text."""
    if value:
        _url(value)
    return value


def check_push_url(value: str) -> str:
    """Require https, or http to this host only, or empty text."""
    if not value:
        return value
    url = _url(value)
    if url.fragment or url.username is not None or url.password is not None:
        raise ValueError("must have no user and no fragment; the signature shows who sends")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError("must be https, except on this host")
    return value


def check_webhook_path(value: str) -> str:
    """Require a path that deliveries can be posted to."""
    if not value.startswith("/") or any(character in value for character in "?#{} "):
        raise ValueError("must start with / and have no space, query or braces")
    if value == "/healthz":
        raise ValueError("must not be /healthz, which is the health check")
    return value


def _url(value: str) -> SplitResult:
    try:
        url = urlsplit(value)
        url.port  # noqa: B018 - reading the port checks it
    except ValueError:
        raise ValueError("must be an http or https address") from None
    is_odd = not value.isprintable() or " " in value
    if url.scheme not in {"http", "https"} or not url.hostname or is_odd:
        raise ValueError("must be an http or https address")
    return url


def is_loopback(host: str) -> bool:
    """Return whether only this host can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
