"""From the answers to the files to write: only what differs, and nothing that is not asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from syncd.config import SYSTEM_PATH, Config, Secret, parse
from syncd.errors import ConfigurationError
from syncd.setup import key_files
from syncd.setup.files import NewFile
from syncd.setup.key_sources import KeySource
from syncd.setup.places import Place, initial_text
from syncd.setup.toml_edit import Change, edit

_CONFIG_MODE, _KEYS_MODE = 0o640, 0o600
_OTHERS = 0o007


class Plan(Struct, frozen=True):
    """The files, the changes of the configuration, and the configuration that comes out."""

    config_file: NewFile
    key_file: NewFile | None
    changes: list[Change]
    config: Config

    @property
    def files(self) -> list[NewFile]:
        """The files in the order of writing: no configuration names a file that is not there."""
        return [*([self.key_file] if self.key_file else []), self.config_file]


def wanted_values(
    config: Config, *, sellable: Sequence[str], public_url: str, listings: str
) -> dict[str, Any]:
    """Return the values that differ from a configuration."""
    values: dict[str, Any] = {}
    if tuple(sellable) != config.availability.sellable:
        values["availability.sellable"] = list(sellable)
    if public_url != config.webhook.public_url:
        values["webhook.public_url"] = public_url
        # The web server passes the path on unchanged.
        path = urlsplit(public_url).path
        if public_url and path != config.webhook.path:
            values["webhook.path"] = path
    if listings != str(config.catalog.listings or ""):
        values["catalog.listings"] = listings
    return values


def plan(
    place: Place,
    source: KeySource,
    keys: tuple[Secret, ...],
    values: Mapping[str, Any],
    *,
    owner: tuple[int, int] | None = None,
) -> Plan:
    """Return the files with these keys and values; raises ConfigurationError if they do not fit.

    `owner`: the ids of the user and the group of the daemon that systemd runs.
    """
    text = initial_text(is_system=place.is_system) if place.text is None else place.text
    edited, changes = _edited(text, {**source.changes(keys), **values})
    config = parse(edited, place.path, os.environ, with_keys=False)
    return Plan(
        NewFile(
            place.path,
            edited.encode(),
            None if place.text is None else place.text.encode(),
            mode=_CONFIG_MODE if place.text is None or place.is_system else None,
            owner=0 if place.is_system else None,
            group=None if owner is None else owner[1],
        ),
        None if source.stays_inline(keys) else _key_file(source, keys, owner),
        changes,
        config,
    )


def _edited(text: str, values: Mapping[str, Any]) -> tuple[str, list[Change]]:
    try:
        return edit(text, values)
    except ConfigurationError:
        if "dreamship.api_keys" not in values:
            raise
        # The file has precedence over these keys, so they may stay with their comments.
        return edit(text, {key: one for key, one in values.items() if key != "dreamship.api_keys"})


def _key_file(
    source: KeySource, keys: tuple[Secret, ...], owner: tuple[int, int] | None
) -> NewFile:
    file = source.file
    before = None if file.text is None else file.text.encode()
    content = key_files.next_text(file, keys).encode()
    if source.is_credential:
        return NewFile(file.path, content, before)
    is_ours = owner is not None and file.path.parent == SYSTEM_PATH.parent
    return NewFile(
        file.path,
        content,
        before,
        mode=_KEYS_MODE if is_ours or _is_open(file.path) else None,
        owner=owner[0] if is_ours and owner else None,
        group=owner[1] if is_ours and owner else None,
    )


def _is_open(path: Path) -> bool:
    """Return whether a file is new, or every user can access it."""
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return True
