"""The sources of api keys, and the check of each key; no message repeats any part of a key."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from syncd.config.files import read_small, reason
from syncd.config.settings import KEYS_CREDENTIAL, KEYS_VARIABLE, Config
from syncd.config.types import Secret

# Names, labels and schemes that documentation writes before a key.
_NAMED = re.compile(r"(?:export\s+)?[A-Za-z_][\w.-]*\s*=\s*[^=\s]|(?:export|set)\s", re.IGNORECASE)
_LABELLED = re.compile(r"[A-Za-z][\w -]*:\s|[\w-]*(?:key|token|authorization)\s*:", re.IGNORECASE)
_SCHEMED = re.compile(r"(?:Bearer|Basic|Token|ApiKey)\s", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"[*xX.•…_-]+|<.*>|\[.*\]|\{.*\}|\$\{?\w+\}?|%\w+%"
    r"|(?:your|my|the|an?|insert|enter|paste|put|write|replace|change)\s.*"
    r"|(?:change|replace)[-_ ]?(?:me|this)|to[-_ ]?do|tbd|none|null|undefined|example|placeholder"
    r"|(?:(?:your|my|the|insert|enter|paste|put|dreamship|example|dummy|ds)[-_ ]*)*"
    r"(?:api|secret|access)[-_ ]*(?:key|token)s?(?:[-_ ]*(?:goes|comes)?[-_ ]*here)?"
    r"|your[-_].*|ds_live_0123456789",  # the example of config.example.toml
    re.IGNORECASE,
)
_QUOTES = "\"'`“”„‘’‚«»"  # noqa: RUF001 - word processors insert these
_BYTE_ORDER_MARK = "\ufeff"


def parse_secret(text: str) -> Secret:
    """Return one api key; raises ValueError with the reason if a text cannot be a key."""
    error = _error(text.strip(" \t\r\n"))
    if error:
        raise ValueError(f"holds an api key that {error}")
    return Secret(text.strip())


def _error(text: str) -> str:
    """Return the clearest reason why a text cannot be an api key, or empty text."""
    if not text:
        return "is empty"
    if text[0] in _QUOTES or text[-1] in _QUOTES:
        return "is in quotes; write it without them"
    if _PLACEHOLDER.fullmatch(text):
        return "is a placeholder; write your own key, from app.dreamship.com/app/settings/api"
    if text.startswith("-----"):
        return "is a certificate or another kind of key"
    if "://" in text:
        return "is an address, not a key"
    if _SCHEMED.match(text):
        return f"has {text.split(maxsplit=1)[0].capitalize()} before it; write the key alone"
    if _NAMED.match(text) or _LABELLED.match(text):
        return "has a name before it, as in api_key=…; write the key alone"
    if re.search(r"\s#|\s//|\s;", text):
        return "has a comment behind it; write comments on lines of their own"
    return _odd_character(text)


def _odd_character(text: str) -> str:
    for position, character in enumerate(text, 1):
        name = unicodedata.name(character, "").lower()
        if character == _BYTE_ORDER_MARK:
            return f"has a byte order mark (BOM) at character {position}; type it again"
        if character in " \t\v\f\r\n":
            return "has a space in it; write one key a line"
        if character in ",;":
            return f"has a {name} in it; write one key a line"
        if not character.isascii() or not character.isprintable():
            kind = "an invisible character" if _is_invisible(character) else "a character"
            code = f"U+{ord(character):04X}{f', {name}' if name else ''}"
            return f"has {kind} ({code}) at character {position}; type it again"
    return ""


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character)[0] in "CZ"


def read_keys(
    config: Config, environ: Mapping[str, str], errors: list[str]
) -> tuple[tuple[Secret, ...], str]:
    """Return the keys of the first source that is set, and its name.

    An empty variable counts as not set.
    """
    variable = environ.get(KEYS_VARIABLE, "")
    if variable.strip(", \t\n"):
        keys = _parse(enumerate(variable.split(","), 1), f"${KEYS_VARIABLE}: key", errors)
        return keys, f"the environment, ${KEYS_VARIABLE}"
    if folder := environ.get("CREDENTIALS_DIRECTORY", ""):
        path, name = Path(folder) / KEYS_CREDENTIAL, f"credential {KEYS_CREDENTIAL}"
        credential = _from_file(path, name, errors, is_optional=True)
        if credential is not None:
            return credential, f"the service manager's {name}"
    if (file := config.dreamship.api_key_file) is not None:
        return _from_file(file, "dreamship.api_key_file", errors) or (), f"the file {file}"
    if config.dreamship.api_keys:
        return config.dreamship.api_keys, "the configuration, dreamship.api_keys"
    return (), "nowhere"


def _from_file(
    path: Path, name: str, errors: list[str], *, is_optional: bool = False
) -> tuple[Secret, ...] | None:
    """Return the keys of a file; None if it is optional and does not exist."""
    earlier_errors = len(errors)
    try:
        lines = read_small(path).split("\n")
    except (OSError, UnicodeError) as error:
        if is_optional and isinstance(error, FileNotFoundError | NotADirectoryError):
            return None
        # The path is not repeated: it may be an api key in the wrong place.
        hint = "" if is_optional else "; a relative path starts at this file"
        errors.append(f"{name}: cannot be read: {reason(error)}{hint}")
        return ()
    numbered = [
        (number, line) for number, line in enumerate(lines, 1) if not line.lstrip().startswith("#")
    ]
    keys = _parse(numbered, f"{name}: line", errors)
    if not keys and len(errors) == earlier_errors:
        errors.append(f"{name}: holds no api key; write one a line")
    return keys


def _parse(texts: Iterable[tuple[int, str]], name: str, errors: list[str]) -> tuple[Secret, ...]:
    keys = []
    for number, text in texts:
        if not text.strip():
            continue
        try:
            keys.append(parse_secret(text))
        except ValueError as error:
            errors.append(f"{name} {number} {error}")
    return tuple(dict.fromkeys(keys))
