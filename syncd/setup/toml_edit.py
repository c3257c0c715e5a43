"""Changes values of a TOML file and keeps everything else: order, comments and unknown parts."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, MutableMapping
from typing import Any

import tomlkit
from msgspec import Struct
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array

from syncd.errors import ConfigurationError

# Texts come first: they may have a # in them.
_COMMENT = re.compile(
    r"""\"\"\".*?\"\"\"|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|(?P<comment>\#[^\r\n]*)""",
    re.DOTALL,
)


class Change(Struct, frozen=True):
    """A key of the configuration with its value in the file, None if it has none, and the next."""

    key: str
    before: Any
    after: Any


def edit(text: str, values: Mapping[str, Any]) -> tuple[str, list[Change]]:
    """Return a file with these values, each named `section.key`, and the changes.

    A value that the file has already is no change. Raises ConfigurationError if the file cannot be
    changed without a loss.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    plain = text.removeprefix(mark)
    expected = tomllib.loads(plain)
    changes = []
    for name, value in values.items():
        section, _, key = name.partition(".")
        before = expected.get(section, {}).get(key)
        if before != value:
            changes.append(Change(name, before, value))
            expected.setdefault(section, {})[key] = value
    if not changes:
        return text, []
    edited = plain
    for change in changes:
        edited = _with_lost_comments(edited, _edited(edited, change), change.key)
    if not _has(edited, expected) or _lost(plain, edited):
        raise ConfigurationError(
            [f"{change.key} cannot be set without a loss in the file" for change in changes],
            hint="set it with an editor, then run `syncd setup` again",
        )
    return mark + edited, changes


def _has(text: str, expected: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        return False


def _lost(before: str, after: str) -> list[str]:
    """Return the comments that only the earlier text has."""
    return [*(Counter(_comments(before)) - Counter(_comments(after))).elements()]


def _comments(text: str) -> list[str]:
    found = (match["comment"] for match in _COMMENT.finditer(text))
    return [comment.rstrip() for comment in found if comment]


def _edited(text: str, change: Change) -> str:
    """Return the changed file; its line ends stay."""
    section, _, key = change.key.partition(".")
    try:
        document = tomlkit.parse(text)
        if section not in document:
            document[section] = tomlkit.table()
        table = document[section]
        if isinstance(table, MutableMapping):
            if isinstance(change.after, list) and isinstance(table.get(key), Array):
                _fill(table[key], change.after)
            else:
                table[key] = change.after
        return tomlkit.dumps(document)
    except (TOMLKitError, ValueError, TypeError, KeyError):
        return text  # the caller notices


def _with_lost_comments(before: str, after: str, name: str) -> str:
    """Return a changed file with the comments of removed entries above their key."""
    lost = _lost(before, after)
    key = re.escape(name.partition(".")[2])
    # The first difference is in the value of the key.
    same = next(
        (at for at, pair in enumerate(zip(before, after, strict=False)) if len({*pair}) > 1), 0
    )
    heads = [*re.finditer(rf"^[ \t]*{key}[ \t]*=", after[: same + len(name)], re.MULTILINE)]
    if not lost or not heads:
        return after
    at = heads[-1].start()
    return after[:at] + "".join(f"{comment}\n" for comment in lost) + after[at:]


def _fill(array: Array, values: list[Any]) -> None:
    """Change only the entries that differ: each entry may have a comment."""
    kept = [value for value in array.unwrap() if value in values]
    if values[: len(kept)] != kept:
        array.clear()
        kept = []
    for value in [one for one in array.unwrap() if one not in kept]:
        array.remove(value)
    array.extend(values[len(kept) :])
