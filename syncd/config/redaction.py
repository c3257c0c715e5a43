"""The configuration in force, as plain values and as TOML, with every secret masked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import json
from msgspec.structs import asdict

from syncd.config.settings import SECTIONS, Config
from syncd.config.types import Address, Secret, duration_text


def in_force(config: Config) -> dict[str, dict[str, Any]]:
    """Return every key with its value in force; secrets are `********`."""
    return {
        section: {
            key: _plain(f"{section}.{key}", value)
            for key, value in asdict(getattr(config, section)).items()
        }
        for section in SECTIONS
    }


def to_toml(config: Config) -> str:
    """Return the configuration in force as TOML that `load` takes, but for the masked secrets."""
    lines: list[str] = []
    for section, values in in_force(config).items():
        lines.append(f"[{section}]")
        # JSON's text, numbers, booleans and lists are TOML's.
        lines += [f"{key} = {json.encode(value).decode()}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)


def _plain(key: str, value: Any) -> Any:
    if key == "notify.url":
        return _without_token(value)
    if key == "notify.command":
        # The program; an argument may be a token.
        return [*value[:1], *(Secret.MASK for _ in value[1:])]
    if key == "webhook.public_url":
        return _without_query(value)
    if isinstance(value, tuple):
        return [_plain("", one) for one in value]
    if isinstance(value, Secret | Path):
        return str(value)
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, Address):
        return value.text
    if value is None:
        return ""
    return value


def _without_token(url: str) -> str:
    """Keep where it goes; path, query and user of such addresses are often the secret itself."""
    return f"{_origin(url)}/{Secret.MASK}" if url else url


def _without_query(url: str) -> str:
    """Keep where it leads, but neither a user nor what is asked there."""
    parts = urlsplit(url)
    asked = f"?{Secret.MASK}" if parts.query else ""
    return f"{_origin(url)}{parts.path}{asked}" if url else url


def _origin(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}"
