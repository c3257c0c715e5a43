"""The file with the api keys: its keys, and its next content. Comments and old keys stay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from syncd.config import Secret
from syncd.config.files import read_small, reason
from syncd.errors import ConfigurationError
from syncd.setup.pasted_keys import find_keys

_HEAD = "# Dreamship's api keys, one a line. Every key verifies deliveries; the first key reads.\n"


_MARK = "\ufeff"
_COMMENT = re.compile(r"\s(#.*)$")


class KeyFile(Struct, frozen=True):
    """A file with api keys; `text` None: there is no file yet. `removed`: dirt around its keys."""

    path: Path
    text: str | None
    keys: tuple[Secret, ...] = ()
    removed: tuple[str, ...] = ()


def read(path: Path) -> KeyFile:
    """Return the keys in a file, cleaned; raises ConfigurationError without any part of a key."""
    try:
        text = read_small(path)
    except (FileNotFoundError, NotADirectoryError):
        return KeyFile(path, None)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            [f"dreamship.api_key_file: cannot be read: {reason(error)}"],
            hint="run it as the owner of the file, or correct dreamship.api_key_file",
        ) from None
    keys: dict[Secret, None] = {}
    removed: dict[str, None] = {"a byte order mark": None} if text.startswith(_MARK) else {}
    for number, line in enumerate(text.removeprefix(_MARK).split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found = find_keys(line)
        except ValueError as error:
            raise ConfigurationError(
                [f"dreamship.api_key_file: line {number} {error}"], hint="correct that line"
            ) from None
        keys.update(dict.fromkeys(found.keys))
        removed.update(dict.fromkeys(one for one in found.removed if one != "spaces"))
    return KeyFile(path, text, tuple(keys), tuple(removed))


def next_text(file: KeyFile, keys: Sequence[Secret]) -> str:
    """Return the content with these keys in this order; comments keep their places."""
    if file.text is None or not file.text.strip():
        return _HEAD + "".join(f"{key.reveal()}\n" for key in keys)
    if file.keys == tuple(keys) and not file.removed:
        return file.text
    waiting = [key.reveal() for key in keys]
    lines = []
    for line in file.text.removeprefix(_MARK).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            lines.append(line)
            continue
        # The daemon refuses a comment behind a key.
        lines += _COMMENT.findall(line)
        if waiting:
            lines += _next_lines(waiting, file, line)
    return "".join(f"{line}\n" for line in [*lines, *waiting])


def _next_lines(waiting: list[str], file: KeyFile, line: str) -> list[str]:
    """Take the keys that belong before and in the place of a line with keys."""
    here = {key.reveal() for key in find_keys(line).keys}
    old = {key.reveal() for key in file.keys}
    taken = []
    while waiting and (waiting[0] not in old or waiting[0] in here):
        taken.append(waiting.pop(0))
    return taken or ([waiting.pop(0)] if waiting else [])
