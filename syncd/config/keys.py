"""Where api keys come from, and what a text is that is no key; no message repeats any of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from syncd.config.files import read_small, reason
from syncd.config.settings import KEYS_CREDENTIAL, KEYS_VARIABLE, Config
from syncd.config.types import Secret

# As Dreamship, editors and other programs' documentation write them, before the key itself.
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
_QUOTES = "\"'`“”„‘’‚«»"  # noqa: RUF001 - the quotes that word processors make of ours
_BYTE_ORDER_MARK = "\ufeff"


def secret(text: str) -> Secret:
    """Take one api key; raises ValueError saying what is wrong with what is none."""
    fault = _fault(text.strip(" \t\r\n"))
    if fault:
        raise ValueError(f"holds an api key that {fault}")
    return Secret(text.strip())


def _fault(text: str) -> str:
    """Return what keeps a text from being an api key, the most telling first; or nothing."""
    if not text:
        return "is empty"
    if text[0] in _QUOTES or text[-1] in _QUOTES:
        return "stands in quotes; write it without them"
    if _PLACEHOLDER.fullmatch(text):
        return "is a placeholder; write your own, from app.dreamship.com/app/settings/api"
    if text.startswith("-----"):
        return "is a certificate or a key of another kind"
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
    for position, one in enumerate(text, 1):
        name = unicodedata.name(one, "").lower()
        if one == _BYTE_ORDER_MARK:
            return f"has a byte order mark (BOM) at character {position}; type it anew"
        if one in " \t\v\f\r\n":
            return "has a space in it; write one key a line"
        if one in ",;":
            return f"has a {name} in it; write one key a line"
        if not one.isascii() or not one.isprintable():
            what = "a character that cannot be seen" if _is_unseen(one) else "a character"
            named = f"U+{ord(one):04X}{f', {name}' if name else ''}"
            return f"has {what} ({named}) at character {position}; type it anew"
    return ""


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character)[0] in "CZ"


def keys_of(
    config: Config, environ: Mapping[str, str], faults: list[str]
) -> tuple[tuple[Secret, ...], str]:
    """Return the first source that is set, and its name; an empty variable is not set."""
    variable = environ.get(KEYS_VARIABLE, "")
    if variable.strip(", \t\n"):
        found = _secrets(enumerate(variable.split(","), 1), f"${KEYS_VARIABLE}: key", faults)
        return found, f"the environment, ${KEYS_VARIABLE}"
    if folder := environ.get("CREDENTIALS_DIRECTORY", ""):
        found_there = _from_file(Path(folder) / KEYS_CREDENTIAL, f"credential {KEYS_CREDENTIAL}")
        if found_there is not None:
            found, told = found_there
            faults += told
            return found, f"the service manager's credential {KEYS_CREDENTIAL}"
    if (file := config.dreamship.api_key_file) is not None:
        found, told = _from_file(file, "dreamship.api_key_file", is_wanted=True) or ((), [])
        faults += told
        return found, f"the file {file}"
    if config.dreamship.api_keys:
        return config.dreamship.api_keys, "the configuration, dreamship.api_keys"
    return (), "nowhere"


def _from_file(
    path: Path, key: str, *, is_wanted: bool = False
) -> tuple[tuple[Secret, ...], list[str]] | None:
    """Return the keys of a file and its faults; None when it need not be there and is not."""
    faults: list[str] = []
    try:
        lines = read_small(path).split("\n")
    except (OSError, UnicodeError) as fault:
        if isinstance(fault, FileNotFoundError | NotADirectoryError) and not is_wanted:
            return None
        # Without the name: who wrote the key itself there would find it in the log.
        told = f"{key}: cannot be read: {reason(fault)}"
        return (), [f"{told}; a relative path starts at this file" if is_wanted else told]
    numbered = [(n, line) for n, line in enumerate(lines, 1) if not line.lstrip().startswith("#")]
    found = _secrets(numbered, f"{key}: line", faults)
    if not found and not faults:
        faults.append(f"{key}: holds no api key; write one a line")
    return found, faults


def _secrets(texts: Iterable[tuple[int, str]], key: str, faults: list[str]) -> tuple[Secret, ...]:
    found = []
    for number, text in texts:
        if not text.strip():
            continue
        try:
            found.append(secret(text))
        except ValueError as fault:
            faults.append(f"{key} {number} {fault}")
    return tuple(dict.fromkeys(found))
