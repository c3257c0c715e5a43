"""The configuration in force, as plain values and as TOML, with every secret masked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, json

from syncd.config.settings import SECTIONS, TABLES, Config, declared
from syncd.config.types import Address, Secret, duration_text
from syncd.config.validators import Masked


def in_force(config: Config) -> dict[str, Any]:
    """Return every key with its value in force; secrets are `********`.

    An array of tables is a list; it is left out if it is empty.
    """
    shown: dict[str, Any] = {name: _values(getattr(config, name)) for name in SECTIONS}
    for name in TABLES:
        if tables := getattr(config, name):
            shown[name] = [_values(table) for table in tables]
    return shown


def to_toml(config: Config) -> str:
    """Return the configuration in force as TOML that `load` accepts, with secrets masked."""
    lines: list[str] = []
    for name, section in in_force(config).items():
        is_array = isinstance(section, list)
        for values in section if is_array else [section]:
            lines.append(f"[[{name}]]" if is_array else f"[{name}]")
            # JSON's text, numbers, booleans and lists are TOML's.
            lines += [f"{key} = {json.encode(value).decode()}" for key, value in values.items()]
            lines.append("")
    return "\n".join(lines)


def _values(section: Struct) -> dict[str, Any]:
    kinds = declared(type(section))
    return {key: _shown(getattr(section, key), kind) for key, kind in kinds.items()}


def _shown(value: Any, kind: Any) -> Any:
    plain = _plain(value)
    for mark in getattr(kind, "__metadata__", ()):
        if isinstance(mark, Masked):
            plain = _MASKS[mark](plain)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Secret | Path):
        return str(value)
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, Address):
        return value.text
    return "" if value is None else value


def _program(command: list[str]) -> list[str]:
    """Mask the arguments, which may be tokens."""
    return [*command[:1], *(Secret.MASK for _ in command[1:])]


def _without_path(url: str) -> str:
    """Mask path, query and user: in the URLs of chat services they are the secret."""
    return f"{_origin(url)}/{Secret.MASK}" if url else url


def _without_query(url: str) -> str:
    """Mask the query and drop the user."""
    parts = urlsplit(url)
    query = f"?{Secret.MASK}" if parts.query else ""
    return f"{_origin(url)}{parts.path}{query}" if url else url


def _origin(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}"


_MASKS: dict[Any, Callable[[Any], Any]] = {
    Masked.ARGUMENTS: _program,
    Masked.PATH: _without_path,
    Masked.QUERY: _without_query,
}
