"""Finds the api keys in pasted text, and names the kinds of text around them, never the text."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress

from msgspec import Struct

from syncd.config import Secret
from syncd.config.api_keys import parse_secret

_QUOTES = "\"'`“”„‘’‚«»"  # noqa: RUF001 - word processors insert these
_PASTE_MARK = re.compile(r"\x1b\[20[01]~")
_BRACKETS = "[](){}<>"
_SEPARATORS = ",;"
_COMMENT = re.compile(r"(?:^|\s+)(?:#|//).*$")
# `Authorization: Bearer`, `X-Api-Key:`, `export SYNCD_DREAMSHIP_API_KEYS=`, `"api_key":`
_NAME = re.compile(
    r"""(?:export\s+|set\s+)?["'`]?[A-Za-z_][\w.-]*["'`]?\s*=(?=\s*[^=\s])"""
    r"""|["'`]?[A-Za-z][\w -]*["'`]?\s*:(?!//)""",
    re.IGNORECASE,
)
_BARE_NAME = re.compile(r"[A-Za-z][\w -]*[:=]")
_SCHEME = re.compile(r"(?:Bearer|Basic|Token|ApiKey)(?:\s+|$)", re.IGNORECASE)
_BULLET = re.compile(r"[-*•]\s+")
# Lines between keys, such as a title or the name of an account, are shorter or have no digit.
_MIN_KEY_CHARS = 12


class PastedKeys(Struct, frozen=True):
    """The keys in a text; `removed` names the kinds of text around them, without any part of it."""

    keys: tuple[Secret, ...]
    removed: tuple[str, ...] = ()


def find_keys(text: str) -> PastedKeys:
    """Return the keys in pasted text; raises ValueError with the reason if there is none.

    Removes everything that documentation, files and word processors write around a key.
    """
    removed: dict[str, None] = {}
    candidates: list[str] = []
    for line in _visible(text, removed).splitlines():
        found = _unwrapped(line, removed)
        candidates += _split(found, removed)
    if not candidates:
        raise ValueError("holds no api key")
    keys: list[Secret] = []
    reasons: list[str] = []
    for candidate in candidates:
        try:
            keys.append(parse_secret(candidate))
        except ValueError as error:
            reasons.append(str(error))
            keys += _in_sentence(candidate)
    likely = [key for key in keys if _is_likely(key.reveal())]
    if likely and (len(likely) < len(keys) or reasons):
        removed["other text"] = None
        keys, reasons = likely, []
    if reasons:
        raise ValueError(reasons[0])
    return PastedKeys(tuple(dict.fromkeys(keys)), tuple(removed))


def _in_sentence(text: str) -> list[Secret]:
    """Return the likely keys among the words of a text, such as a line of curl."""
    keys = []
    for word in text.split():
        with suppress(ValueError):
            key = parse_secret(_unwrapped(word, {}))
            keys += [key] if _is_likely(key.reveal()) else []
    return keys


def _is_likely(key: str) -> bool:
    return len(key) >= _MIN_KEY_CHARS and any(character.isdigit() for character in key)


def _visible(text: str, removed: dict[str, None]) -> str:
    """Return text without invisible characters, with every kind of space as a space."""
    if text.startswith("\ufeff"):
        removed["a byte order mark"] = None
        text = text.lstrip("\ufeff")
    text = _PASTE_MARK.sub("", text)
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category == "Zs" or character in "\t\v\f":
            kept.append(" ")
        elif category in {"Cf", "Cc"} and character not in "\r\n":
            removed["invisible characters"] = None
        else:
            kept.append(character)
    return "".join(kept)


def _unwrapped(line: str, removed: dict[str, None]) -> str:
    """Return a line without the text around its keys."""
    before = None
    while line != before:
        before = line
        for pattern, name in (
            (_COMMENT, "a comment"),
            (_BULLET, "a list mark"),
            (_NAME, "a name before the key"),
            (_SCHEME, "a word such as Bearer"),
        ):
            line = _without(pattern, line, name, removed)
        if _BARE_NAME.fullmatch(line):
            removed["a name before the key"], line = None, ""
        for characters, name in (
            (" ", "spaces"),
            (_QUOTES, "quotes"),
            (_SEPARATORS, "commas"),
        ):
            if line.strip(characters) != line:
                removed[name], line = None, line.strip(characters)
        if len(line) > 1 and line[0] in "[({" and line[-1] in "])}":
            removed["brackets"], line = None, line.strip(_BRACKETS)
    return line


def _without(pattern: re.Pattern[str], line: str, name: str, removed: dict[str, None]) -> str:
    found = pattern.search(line) if pattern is _COMMENT else pattern.match(line)
    if found is None or not found[0]:
        return line
    removed[name] = None
    return line[: found.start()] + line[found.end() :]


def _split(line: str, removed: dict[str, None]) -> list[str]:
    """Return the keys of one line with several, such as `"KEY", "KEY"`."""
    if not any(character in line for character in _SEPARATORS):
        return [line] if line else []
    parts = (_unwrapped(part, removed) for part in re.split(r"[,;]", line))
    return [part for part in parts if part]
