"""Where the files of an installation are: in /etc/syncd as root, else in a folder of the user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

import syncd
from syncd.config import SYSTEM_PATH
from syncd.config.files import read_small, reason
from syncd.errors import ConfigurationError

KEY_FILE = "api-keys"


class Place(Struct, frozen=True):
    """The configuration to write; `text` None: there is none yet. `is_system`: systemd runs it."""

    path: Path
    text: str | None
    is_system: bool


def locate(explicit: str | None, environ: Mapping[str, str]) -> Place:
    """Return the place of the configuration; raises ConfigurationError if nobody can write there.

    Root's is /etc/syncd/config.toml, and that of another user ./config.toml, unless one is named.
    """
    is_root = os.geteuid() == 0
    named = explicit or environ.get("SYNCD_CONFIG")
    path = Path(named or (SYSTEM_PATH if is_root else "config.toml")).absolute()
    try:
        text = read_small(path)
    except (FileNotFoundError, NotADirectoryError):
        text = None
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            [f"{path}: {reason(error)}"], hint="run it as the owner of the file, or as root"
        ) from None
    _require_writable(path)
    return Place(path, text, is_system=is_root and path == SYSTEM_PATH)


def initial_text(*, is_system: bool) -> str:
    """Return the commented example; a user's mirror and socket are beside the configuration."""
    text = _example().read_text(encoding="utf-8")
    if not is_system:
        text = text.replace('"/var/lib/syncd/availability.db"', '"availability.db"')
        text = text.replace('"/run/syncd/control.sock"', '"control.sock"')
    return text


def _example() -> Path:
    """Return the commented example: in the package, or beside it in a checkout."""
    package = Path(syncd.__file__).parent
    shipped = package / "config.example.toml"
    return shipped if shipped.exists() else package.parent / "config.example.toml"


def _require_writable(path: Path) -> None:
    """Raise ConfigurationError before the first question if the answers could not be written."""
    folder = path.resolve().parent
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    if os.access(existing, os.W_OK) and existing.is_dir():
        return
    hint = "run it in a folder that this user can write, or name one with -c"
    if path == SYSTEM_PATH:
        hint = "run it as root"
    raise ConfigurationError([f"{existing} cannot be written"], hint=hint)
