"""What each key takes: one small function from a TOML value to ours, raising ValueError otherwise.

A message never repeats text: it may be an api key in the wrong place.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from syncd.config.keys import secret
from syncd.config.types import (
    MAX_SOCKET_PATH_BYTES,
    Address,
    Secret,
    absolute,
    parse_address,
    parse_duration,
)

Check = Callable[[Any, Path], Any]
_MAX_ID = 2**63 - 1


def text(value: Any, folder: Path) -> str:
    """Take text."""
    del folder
    if not isinstance(value, str):
        raise ValueError(f"takes text in quotes, not {_kind(value)}")  # noqa: TRY004 - as all here
    return value


def whole(lowest: int, highest: int) -> Check:
    """Take a whole number of a range."""

    def check(value: Any, folder: Path) -> int:
        del folder
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"takes a whole number, not {_kind(value)}")  # noqa: TRY004
        if not lowest <= value <= highest:
            raise ValueError(f"{value} is not between {lowest} and {highest}")
        return value

    return check


def seconds(value: Any, folder: Path) -> float:
    """Take a number of seconds, up to five minutes."""
    del folder
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"takes a number of seconds, not {_kind(value)}")  # noqa: TRY004
    if not 0 < value <= 300:  # noqa: PLR2004 - five minutes
        raise ValueError(f"{value} is not above 0 and at most 300")
    return float(value)


def duration(shortest: str, longest: str = "3650d") -> Check:
    """Take a duration of a range."""

    def check(value: Any, folder: Path) -> timedelta:
        found = parse_duration(text(value, folder))
        if not parse_duration(shortest) <= found <= parse_duration(longest):
            raise ValueError(f"is not between {shortest} and {longest}")
        return found

    return check


def address(value: Any, folder: Path) -> Address:
    """Take where to listen."""
    return parse_address(text(value, folder))


def address_or_off(value: Any, folder: Path) -> Address | None:
    """Take where to listen; empty text turns the listener off."""
    return None if value == "" else address(value, folder)


def path(value: Any, folder: Path) -> Path:
    """Take a path; a relative one starts at the folder of the configuration file."""
    if not text(value, folder).strip() or "\0" in value:
        raise ValueError("must name a path")
    found = absolute(value, folder)
    try:
        str(found).encode()
    except UnicodeEncodeError:
        # Neither JSON, nor a page, nor a log could show it.
        raise ValueError(
            "starts at a folder whose name is not UTF-8; name an absolute path"
        ) from None
    return found


def socket_path(value: Any, folder: Path) -> Path:
    """Take a path short enough for a socket."""
    found = path(value, folder)
    if len(str(found).encode(errors="replace")) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"is longer than the {MAX_SOCKET_PATH_BYTES} bytes a socket may have")
    return found


def path_or_none(value: Any, folder: Path) -> Path | None:
    """Take a path, or empty text for none."""
    return None if value == "" else path(value, folder)


def choice(*allowed: str) -> Check:
    """Take one of some words."""

    def check(value: Any, folder: Path) -> str:
        if text(value, folder) not in allowed:
            raise ValueError(f"is none of {', '.join(allowed)}")
        return str(value)

    return check


def texts(value: Any, folder: Path) -> tuple[str, ...]:
    """Take a list of texts, none of them empty; no command can have a NUL in it."""
    found = _list(value, "of texts")
    if not all(isinstance(one, str) and one.strip() and "\0" not in one for one in found):
        raise ValueError("takes a list of texts, none of them empty and none with a NUL")
    return tuple(text(one, folder) for one in found)


def sellable(value: Any, folder: Path) -> tuple[str, ...]:
    """Take the sellable values; none at all would take the whole shop off sale by a slip."""
    found = texts(value, folder)
    if not found:
        raise ValueError("is empty: nothing could ever be sold")
    return found


def ids(value: Any, folder: Path) -> tuple[int, ...]:
    """Take a list of ids, each once."""
    check = whole(1, _MAX_ID)
    found = tuple(check(one, folder) for one in _list(value, "of ids"))
    twice = sorted({one for one in found if found.count(one) > 1})
    if twice:
        raise ValueError(f"names {', '.join(map(str, twice))} more than once")
    return found


def secrets(value: Any, folder: Path) -> tuple[Secret, ...]:
    """Take a list of api keys."""
    del folder
    found = _list(value, "of api keys")
    if not all(isinstance(one, str) for one in found):
        raise ValueError("takes a list of texts in quotes")
    return tuple(secret(one) for one in found)


def base_url(value: Any, folder: Path) -> str:
    """Take the API's address: https, or http on this host alone, since the key travels with it."""
    url = _url(text(value, folder))
    if url.query or url.fragment or url.username is not None or url.password is not None:
        raise ValueError("takes no user, query or fragment")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError("must be https: the api key would travel in the clear")
    return str(value).rstrip("/")


def url_or_empty(value: Any, folder: Path) -> str:
    """Take an http or https address, or empty text for none; the value may hold a token."""
    if text(value, folder):
        _url(value)
    return str(value)


def webhook_path(value: Any, folder: Path) -> str:
    """Take the path deliveries are posted to."""
    found = text(value, folder)
    if not found.startswith("/") or any(character in found for character in "?#{} "):
        raise ValueError("must start with / and have no space, query or braces")
    if found == "/healthz":
        raise ValueError("/healthz is taken")
    return found


def _url(value: str) -> Any:
    try:
        url = urlsplit(value)
        url.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise ValueError("is no http or https address") from None
    is_odd = not value.isprintable() or " " in value
    if url.scheme not in {"http", "https"} or not url.hostname or is_odd:
        raise ValueError("is no http or https address")
    return url


def is_loopback(host: str) -> bool:
    """Tell whether only this host can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _list(value: Any, of_what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"takes a list {of_what}, not {_kind(value)}")  # noqa: TRY004
    return value


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    return kinds.get(type(value), "a table" if isinstance(value, dict) else "a list")


CHECKS: dict[str, dict[str, Check]] = {
    "dreamship": {
        "base_url": base_url,
        "api_keys": secrets,
        "api_key_file": path_or_none,
        "calls_per_minute": whole(1, 6000),
        "timeout_seconds": seconds,
    },
    "webhook": {
        "listen": address,
        "path": webhook_path,
        "max_body_bytes": whole(1024, 64 * 1024 * 1024),
        "public_url": url_or_empty,
    },
    "mirror": {"path": path},
    "catalog": {"items": ids, "categories": ids},
    "availability": {"sellable": sellable},
    "reconcile": {
        "every": duration("1s"),
        "every_when_silent": duration("1s"),
        "removal_limit_percent": whole(0, 100),
        "settle": duration("0s", "1h"),
        "missed_grace": duration("0s", "7d"),
    },
    "retention": {"deliveries": duration("1h"), "changes": duration("1h")},
    "admin": {"listen": address_or_off},
    "control": {"socket": socket_path},
    "notify": {"command": texts, "url": url_or_empty},
    "log": {
        "level": choice("debug", "info", "warning", "error"),
        "format": choice("auto", "json", "console"),
    },
}
