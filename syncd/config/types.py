"""The types of configuration values: durations, addresses, secrets, paths."""

from __future__ import annotations

import base64
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Literal, NoReturn

from msgspec import Struct

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_LONGEST = timedelta(days=3650)
_MAX_PORT = 65_535
# sockaddr_un holds 108 bytes with the closing zero.
MAX_SOCKET_PATH_BYTES = 107
# By the Standard Webhooks specification.
_SIGNING_BYTES = (24, 64)


def parse_duration(text: str) -> timedelta:
    """Return `90s`, `15m`, `6h` or `30d` as a duration; ValueError says how to write one."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a duration such as 90s, 15m, 6h or 30d")
    seconds = int(match.group(1)) * _UNITS_S[match.group(2)]
    if seconds > _LONGEST.total_seconds():
        raise ValueError("is longer than ten years")
    return timedelta(seconds=seconds)


def duration_text(duration: timedelta) -> str:
    """Return a duration in the largest unit that makes it a whole number."""
    seconds = int(duration.total_seconds())
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS_S[unit] == 0:
            return f"{seconds // _UNITS_S[unit]}{unit}"
    return f"{seconds}s"


class Address(Struct, frozen=True):
    """Where to listen: a host and port, or the path of a unix socket."""

    kind: Literal["tcp", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def text(self) -> str:
        """Return the form of the configuration."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return `host:port`, `[v6]:port` or `unix:/path`; ValueError says how to write one."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise ValueError("needs an absolute path after unix:")
        if len(path.encode(errors="replace")) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a socket's path")
        return Address("unix", path=path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # a bare v6 address: the start of its port is ambiguous
    is_port = port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT))
    is_host = host.isprintable() and not any(char.isspace() or char in "[]/" for char in host)
    if not colon or not host or not is_host or not is_port or int(port) > _MAX_PORT:
        raise ValueError("must be an address: host:port, [v6]:port or unix:/path")
    return Address("tcp", host=host, port=int(port))


class Secret:
    """Text that only `reveal()` returns; every other form of it is masked."""

    __slots__ = ("_text",)
    MASK = "********"

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._text

    def __str__(self) -> str:
        return self.MASK

    def __repr__(self) -> str:
        return f"Secret({self.MASK})"

    def __format__(self, spec: str) -> str:
        return format(self.MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


class SigningSecret(Secret):
    """A secret of the Standard Webhooks specification: `whsec_` and 24 to 64 bytes in base64."""

    __slots__ = ()
    PREFIX = "whsec_"


def parse_signing_secret(text: str) -> SigningSecret:
    """Return a signing secret; ValueError says what is wrong, without repeating it."""
    text = text.strip()
    make = "make one with: echo whsec_$(head -c 32 /dev/urandom | base64)"
    if not text.startswith(SigningSecret.PREFIX):
        raise ValueError(f"must begin with {SigningSecret.PREFIX}; {make}")
    encoded = text.removeprefix(SigningSecret.PREFIX)
    try:
        # Some tools write base64 without the padding.
        length = len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except ValueError:
        raise ValueError(
            f"must have base64 (A-Z, a-z, 0-9, + and /) after {SigningSecret.PREFIX}; {make}"
        ) from None
    shortest, longest = _SIGNING_BYTES
    if not shortest <= length <= longest:
        raise ValueError(f"has {length} bytes, and must have {shortest} to {longest}; {make}")
    return SigningSecret(text)


def parse_path(text: str, folder: Path) -> Path:
    """Return a path of the configuration; a relative path starts at the file's own folder.

    Raises ValueError if the path is empty, its home is unknown or no program can open its name.
    """
    if not text.strip() or "\0" in text:
        raise ValueError("must be a path")
    path = Path(text)
    if text.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:
            path = Path()
        # $HOME may have any value, for instance an empty one.
        if not path.is_absolute() or os.environ.get("HOME") == "":
            raise ValueError("starts with ~, and there is no such home: write the whole path")
    path = folder / path
    try:
        os.fsencode(path)
        str(path).encode()
    except UnicodeEncodeError:
        # syncd and the shop could open different files, and no status document could name it.
        raise ValueError(
            "has a name this locale cannot write: set LC_ALL=C.UTF-8, and name folders in UTF-8"
        ) from None
    return path
