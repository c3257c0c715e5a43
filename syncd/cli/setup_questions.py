"""The questions of `syncd setup`: each has a flag, a default, and an answer that is checked."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import click

from syncd.config import is_loopback
from syncd.config.listings_file import read as read_listings
from syncd.config.validators import check_url, check_webhook_path
from syncd.core.plain_text import visible
from syncd.errors import ListingsInvalid, UsageError
from syncd.setup import users
from syncd.setup.account import Values
from syncd.setup.sites import Server

T = TypeVar("T")

_SUPPORTED: dict[str, Server] = {"nginx": "nginx", "caddy": "caddy"}
SERVERS = (*_SUPPORTED, "none")


class Asker:
    """Asks a person on the terminal, or takes the defaults (`--yes`)."""

    def __init__(self, *, takes_defaults: bool) -> None:
        self.takes_defaults = takes_defaults

    def ask(self, question: str, flag: str, default: str, parse: Callable[[str], T]) -> T:
        """Return the parsed answer, or the default; a wrong answer is asked again.

        `parse` raises ValueError with the reason. Raises UsageError if nobody can answer.
        """
        if self.takes_defaults:
            return parse(default)
        self.require_terminal(flag)

        def checked(text: str) -> T:
            try:
                return parse(text.strip())
            except ValueError as error:
                raise click.UsageError(f"this {error}") from None

        shown = f" [{visible(default)}]" if default else ""
        answer: T = click.prompt(
            f"{question}{shown}",
            default=default,
            show_default=False,
            value_proc=checked,
            err=True,
        )
        return answer

    def require_terminal(self, flag: str) -> None:
        """Raise UsageError if there is no terminal to ask on."""
        if not sys.stdin.isatty():
            raise UsageError(
                f"{flag} is missing, and there is no terminal to ask on",
                hint=f"add {flag}, or --yes to take the defaults",
            )


def parse_url(text: str, path: str) -> str:
    """Return the URL of the webhook, with `path` if it names none; ValueError says what is wrong.

    Empty text stays empty.
    """
    if not text:
        return ""
    text = text.rstrip("/") if urlsplit(text).path in {"", "/"} else text
    if "://" not in text:
        text = f"https://{text}"
    check_url(text)
    parts = urlsplit(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no user, query or fragment")
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("must begin with https://: Dreamship sends only to such URLs")
    if parts.path in {"", "/"}:
        return f"{parts.scheme}://{parts.netloc}{path}"
    check_webhook_path(parts.path)
    return text


def parse_users(text: str) -> tuple[str, ...]:
    """Return the users of a list; ValueError names the first that this host does not have."""
    names = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if names == ("none",):
        return ()
    for name in names:
        if users.ids_of(name) is None:
            raise ValueError(f"names {visible(name[:40])}, and this host has no such user")
    return names


def parse_listings(text: str, *, is_system: bool = False) -> str:
    """Return the absolute path of a valid file of SKUs; ValueError says what is wrong with it."""
    if text in {"", "none"}:
        return ""
    path = Path(text).expanduser().absolute()
    if (is_system and path.is_relative_to("/home")) or (path.is_relative_to("/root") and is_system):
        raise ValueError("is in a home folder, which the service cannot see: copy it to /etc/syncd")
    try:
        read_listings(path)
    except ListingsInvalid as error:
        raise ValueError(f"cannot be used: {'; '.join(error.errors[:3])}") from None
    return str(path)


def parse_values(text: str, values: Values | None) -> tuple[str, ...]:
    """Return the values of a list of values and of their numbers in the shown table."""
    listed = list(values.counts) if values is not None else []
    chosen = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        number = int(part) if part.isascii() and part.isdigit() and len(part) < 4 else 0  # noqa: PLR2004
        chosen.append(listed[number - 1] if 1 <= number <= len(listed) else part)
    if not chosen:
        raise ValueError("names no value; name at least one")
    return tuple(dict.fromkeys(chosen))


def parse_server(text: str) -> Server | None:
    """Return a supported web server, None for `none`."""
    name = text.casefold()
    if name in _SUPPORTED:
        return _SUPPORTED[name]
    if name != "none":
        raise ValueError(f"is none of {', '.join(SERVERS)}")
    return None


def guess_server() -> str:
    """Return the web server that is installed, `none` without one that syncd knows."""
    folders = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
    for name in _SUPPORTED:
        if shutil.which(name) or shutil.which(name, path=folders):
            return name
    return "none"


def flagged(flag: str, text: str, parse: Callable[[str], T]) -> T:
    """Return the parsed value of a flag; raises UsageError with the reason."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{flag} {error}", hint="`syncd setup --help` explains it") from None


def joined(values: Sequence[str]) -> str:
    """Return a list as people type it."""
    return ", ".join(values)
