"""Where a configuration has its api keys, and where setup stores the next ones."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from msgspec import Struct

from syncd.config import Config, Secret
from syncd.errors import ConfigurationError
from syncd.setup import key_files
from syncd.setup.key_files import KeyFile
from syncd.setup.pasted_keys import find_keys
from syncd.setup.places import KEY_FILE, Place


class KeySource(Struct, frozen=True):
    """The keys of a configuration, in their order, and the file for the next ones.

    `in_file`: keys of `file`. `inline`: keys of `dreamship.api_keys`, which only count if no file
    is set. `is_credential`: systemd hands the file over. `removed`: the kinds of text around keys.
    """

    file: KeyFile
    inline: tuple[Secret, ...] = ()
    is_configured: bool = False
    is_credential: bool = False

    @property
    def keys(self) -> tuple[Secret, ...]:
        """All keys of the configuration; those that are in force come first."""
        return tuple(dict.fromkeys((*self.file.keys, *self.inline)))

    @property
    def removed(self) -> tuple[str, ...]:
        """The kinds of text around the keys of the file."""
        return self.file.removed

    def changes(self, keys: tuple[Secret, ...]) -> dict[str, Any]:
        """Return the values of the configuration that make these keys the keys in force."""
        if self.is_credential or self.is_configured or self.stays_inline(keys):
            return {}
        moved: dict[str, Any] = {"dreamship.api_keys": []} if self.inline else {}
        return {"dreamship.api_key_file": self.file.path.name, **moved}

    def stays_inline(self, keys: tuple[Secret, ...]) -> bool:
        """Return whether the keys are in the configuration itself, and no other one is wanted."""
        has_file = self.is_configured or self.is_credential or self.file.keys
        return not has_file and bool(keys) and keys == self.inline


def find(place: Place, config: Config, credential: Path | None) -> KeySource:
    """Return the source of the keys; raises ConfigurationError if it has text that is no key."""
    configured = config.dreamship.api_key_file
    path = configured or credential or place.path.parent / KEY_FILE
    return KeySource(
        key_files.read(path),
        _inline(place.text or ""),
        is_configured=configured is not None,
        is_credential=configured is None and credential is not None,
    )


def _inline(text: str) -> tuple[Secret, ...]:
    """Return the keys of `dreamship.api_keys`; the text is valid TOML."""
    section = tomllib.loads(text.removeprefix("\ufeff")).get("dreamship", {})
    found: list[Secret] = []
    for number, entry in enumerate(section.get("api_keys", []), 1):
        try:
            found += find_keys(entry).keys
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                [f"dreamship.api_keys: entry {number} {error}"], hint="remove that entry"
            ) from None
    return tuple(found)
