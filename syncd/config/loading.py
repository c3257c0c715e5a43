"""TOML and environment into one frozen Config; all errors are reported together."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from syncd.config.api_keys import parse_secret, read_keys
from syncd.config.files import absolute, read_small, reason
from syncd.config.publish import TargetUrl, parse_target_url, read_target
from syncd.config.pushes import check_pushes, read_signing_secrets
from syncd.config.settings import REMOTE_ADMIN_VARIABLE, SECTIONS, TABLES, Config, declared
from syncd.config.types import (
    Address,
    Secret,
    SigningSecret,
    parse_address,
    parse_duration,
    parse_path,
    parse_signing_secret,
)
from syncd.config.validators import describe, is_loopback
from syncd.errors import ConfigurationError

SYSTEM_PATH = Path("/etc/syncd/config.toml")
_KEY_NAME = re.compile(r"[A-Za-z_-]{1,40}")
_NAMES = {
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction",
    str: "text",
    list: "a list",
    dict: "a table",
}
_SETUP_HINT = "`syncd setup` writes one; or name the file with --config"


def find(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Return the configuration file to use: the first of `--config`, `$SYNCD_CONFIG`,
    `./config.toml` and `/etc/syncd/config.toml` that is given or exists.

    Raises ConfigurationError when there is none.
    """  # noqa: D205 - the search order is the promise
    return search(explicit, environ)[0]


def search(explicit: str | None, environ: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Return the result of `find`, and a message for each place that this user cannot access."""
    if explicit:
        return Path(explicit), []
    if environ.get("SYNCD_CONFIG"):
        return Path(environ["SYNCD_CONFIG"]), []
    candidates = (Path("config.toml"), SYSTEM_PATH)
    skipped = []
    for candidate in candidates:
        try:
            candidate.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            skipped.append(f"{absolute(candidate)} cannot be accessed: {error.strerror}")
        else:
            return candidate, skipped
    if skipped:
        raise ConfigurationError(
            skipped,
            hint="run it in a folder that this user may enter, or use --config",
        )
    raise ConfigurationError(
        [
            f"no configuration: neither $SYNCD_CONFIG, {absolute(candidates[0])} nor {SYSTEM_PATH}",
        ],
        hint="`syncd setup` asks and writes one, or name yours with --config",
    )


def load(path: Path, environ: Mapping[str, str], *, with_keys: bool = True) -> Config:
    """Return the checked configuration in `path` with the api keys of `environ`.

    Relative paths in the file start at its own folder. With `with_keys=False` no source of api keys
    is read: a reader of the configuration may lack the right to read them. Raises
    ConfigurationError with every error.
    """
    return parse(_text(path), path, environ, with_keys=with_keys)


def parse(text: str, path: Path, environ: Mapping[str, str], *, with_keys: bool = True) -> Config:
    """Return the checked configuration in a text, as `load` does if `path` has this text."""
    document = _parsed(text, path)
    folder = absolute(path).parent
    errors: list[str] = []
    if not with_keys and isinstance(section := document.get("dreamship"), dict):
        section.pop("api_keys", None)
    sections = {
        name: _section(name, kind, document.get(name, {}), folder, errors)
        for name, kind in SECTIONS.items()
    } | {
        name: _tables(name, kind, document.get(name, []), folder, errors)
        for name, kind in TABLES.items()
    }
    known = SECTIONS | TABLES
    errors += [_unknown(name, known, "") for name in document if name not in known]
    config = Config(**sections)
    _check_listeners(config, environ, errors)
    _check_catalog(config, errors)
    check_pushes(config.push, errors)
    keys, keys_from = read_keys(config, environ, errors) if with_keys else ((), "nowhere")
    signing_secrets = read_signing_secrets(config.push, errors) if with_keys else {}
    is_valid = not errors
    target = read_target(config.publish, environ, errors) if with_keys else None
    if config.publish.standby and with_keys and is_valid and not errors and target is None:
        errors.append("publish.standby: needs publish.url or publish.url_file, the shared database")
    if errors:
        raise ConfigurationError(
            errors, hint=f"correct {path}; config.example.toml documents every key"
        )
    return Config(
        **sections,
        keys=keys,
        keys_from=keys_from,
        signing_secrets=signing_secrets,
        target=target,
    )


def _text(path: Path) -> str:
    try:
        return read_small(path)
    except UnicodeError as error:
        raise ConfigurationError([f"{path}: {reason(error)}"], hint="save it as UTF-8") from None
    except OSError as error:
        hint = _SETUP_HINT
        if isinstance(error, PermissionError):
            hint = "run it as a user who may read the file (a member of its group), or name another"
        elif str(path).startswith("~"):
            hint = "write the whole path: the shell has not expanded the ~"
        raise ConfigurationError([f"{path}: {reason(error)}"], hint=hint) from None


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        # The message of tomllib names line and column, and repeats one character or one key.
        raise ConfigurationError(
            [f"{path}: is not TOML: {error}"], hint="see https://toml.io"
        ) from None


_PARSERS: dict[Any, Callable[[str], Any]] = {
    timedelta: parse_duration,
    Address: parse_address,
    Secret: parse_secret,
    SigningSecret: parse_signing_secret,
    TargetUrl: parse_target_url,
}


def _tables(
    name: str, kind: type[msgspec.Struct], values: Any, folder: Path, errors: list[str]
) -> tuple[Any, ...]:
    """Return an array of tables; errors name a table by its number, from 1."""
    if not isinstance(values, list):
        errors.append(f"{name}: must be written as [[{name}]], once for each")
        return ()
    return tuple(
        _section(f"{name}[{number}]", kind, value, folder, errors)
        for number, value in enumerate(values, 1)
    )


def _section(
    name: str, section: type[msgspec.Struct], values: Any, folder: Path, errors: list[str]
) -> Any:
    good = {}
    if not isinstance(values, dict):
        errors.append(f"{name}: must be a section [{name}]")
        return section()
    keys = declared(section)
    for key, value in values.items():
        if key not in keys:
            errors.append(_unknown(key, keys, f"{name}."))
            continue
        # msgspec stops at the first error of a record, so each key is converted by itself.
        try:
            good[key] = convert(value, keys[key], folder)
        except ValueError as error:
            errors.append(f"{name}.{key}: {error}")
    return section(**good)


def convert(value: Any, kind: Any, folder: Path) -> Any:
    """Return a TOML value as the declared type of its key; raises ValueError with the reason.

    The reason never repeats text; messages of msgspec do.
    """
    base, *metadata = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    if type(None) in get_args(base):
        if value == "":
            return None
        base = get_args(base)[0]
    try:
        if get_origin(base) is tuple:
            entries = msgspec.convert(value, list[Any])
            converted: Any = _entries(entries, get_args(base)[0], folder)
        elif base is Path:
            converted = parse_path(msgspec.convert(value, str), folder)
        elif parse := _PARSERS.get(base):
            converted = parse(msgspec.convert(value, str))
        else:
            converted = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        found = f", not {_NAMES.get(type(value), 'a time')}" if " got " in str(error) else ""
        raise ValueError(f"must be {describe(kind)}{found}") from None
    for check in filter(callable, metadata):
        converted = check(converted)
    return converted


def _entries(entries: list[Any], kind: Any, folder: Path) -> tuple[Any, ...]:
    converted = []
    for number, entry in enumerate(entries, 1):
        try:
            converted.append(convert(entry, kind, folder))
        except ValueError as error:
            raise ValueError(f"entry {number} {error}") from None
    return tuple(converted)


def _unknown(name: str, known: Mapping[str, object], prefix: str) -> str:
    # The keys of syncd are short names. Any other text may be an api key in the wrong place.
    shown = name if _KEY_NAME.fullmatch(name) else "…"
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"{prefix}{shown}: there is no such key; is it {prefix}{near[0]}?"
    elsewhere = [
        f"{section}.{name}" for section, kind in SECTIONS.items() if name in declared(kind)
    ]
    if elsewhere:
        return f"{prefix}{shown}: there is no such key; is it {' or '.join(elsewhere)}?"
    return f"{prefix}{shown}: there is no such key"


def _check_listeners(config: Config, environ: Mapping[str, str], errors: list[str]) -> None:
    webhook, admin = config.webhook.listen, config.admin.listen
    if admin is not None and webhook == admin and (webhook.kind == "unix" or webhook.port):
        errors.append("admin.listen: must differ from webhook.listen")
    is_open = admin is not None and admin.kind == "tcp" and not is_loopback(admin.host)
    if is_open and not environ.get(REMOTE_ADMIN_VARIABLE):
        errors.append(
            "admin.listen: is not on loopback, and everybody who can reach it can read it; put a "
            f"web server with a password in front of it, or set ${REMOTE_ADMIN_VARIABLE}=1"
        )


def _check_catalog(config: Config, errors: list[str]) -> None:
    catalog = config.catalog
    if catalog.listed_only and catalog.listings is None:
        errors.append("catalog.listed_only: needs catalog.listings, the file with the SKUs")
    if catalog.listed_only and (catalog.items or catalog.categories):
        errors.append("catalog.listed_only: the listings name the items; remove items, categories")
