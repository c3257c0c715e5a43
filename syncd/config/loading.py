"""TOML and environment into one frozen Config, every fault found reported together."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncd.config.files import absolute, read_small, reason
from syncd.config.keys import keys_of
from syncd.config.settings import REMOTE_ADMIN_VARIABLE, SECTIONS, Config
from syncd.config.validators import CHECKS, is_loopback
from syncd.errors import ConfigurationError

SYSTEM_PATH = Path("/etc/syncd/config.toml")
_WORDS = re.compile(r"[A-Za-z_-]{1,40}")
_EXAMPLE = "`syncd init` writes one; or name the file with --config"


def find(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Return the configuration file to use: the first of `--config`, `$SYNCD_CONFIG`,
    `./config.toml` and `/etc/syncd/config.toml` that is given or exists.

    Raises ConfigurationError when there is none.
    """  # noqa: D205 - the search order is the promise
    return search(explicit, environ)[0]


def search(explicit: str | None, environ: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Return what `find` does, and which places this user may not look at, each with why."""
    if explicit:
        return Path(explicit), []
    if environ.get("SYNCD_CONFIG"):
        return Path(environ["SYNCD_CONFIG"]), []
    candidates = (Path("config.toml"), SYSTEM_PATH)
    passed_over = []
    for candidate in candidates:
        try:
            candidate.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as fault:
            passed_over.append(f"{absolute(candidate)} cannot be looked at: {fault.strerror}")
        else:
            return candidate, passed_over
    if passed_over:
        raise ConfigurationError(
            passed_over, hint="call it from a folder this user may enter, or name it with --config"
        )
    raise ConfigurationError(
        [
            f"no configuration: neither $SYNCD_CONFIG, {absolute(candidates[0])} nor {SYSTEM_PATH}",
        ],
        hint="`syncd init` writes a commented one, or name yours with --config",
    )


def load(path: Path, environ: Mapping[str, str], *, with_keys: bool = True) -> Config:
    """Return the configuration in `path` with the keys of `environ`, checked whole.

    Relative paths in it start at its own folder. Without keys no source of them is read, which not
    everybody who may read the configuration may do. Raises ConfigurationError naming every fault.
    """
    document = _parsed(path)
    folder = absolute(path).parent
    faults: list[str] = []
    if not with_keys and isinstance(section := document.get("dreamship"), dict):
        section.pop("api_keys", None)
    sections = {name: _section(name, document.get(name, {}), folder, faults) for name in SECTIONS}
    faults += [_unknown(name, SECTIONS, "") for name in document if name not in SECTIONS]
    config = Config(**sections)
    _check_listeners(config, environ, faults)
    keys, keys_from = keys_of(config, environ, faults) if with_keys else ((), "nowhere")
    if faults:
        raise ConfigurationError(
            faults, hint=f"correct {path}; config.example.toml documents every key"
        )
    return Config(**sections, keys=keys, keys_from=keys_from)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = read_small(path).removeprefix("\ufeff")
    except UnicodeError as fault:
        raise ConfigurationError([f"{path}: {reason(fault)}"], hint="save it as UTF-8") from None
    except OSError as fault:
        hint = _EXAMPLE
        if isinstance(fault, PermissionError):
            hint = "run it as a user who may read it (a member of its group), or name another one"
        elif str(path).startswith("~"):
            hint = "write the whole path: nothing has made a folder of the ~"
        raise ConfigurationError([f"{path}: {reason(fault)}"], hint=hint) from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as fault:
        # A message of its own names line and column and, of the file, a character or a key; what
        # else is raised (a number of 5,000 digits, brackets without end) only that.
        raise ConfigurationError(
            [f"{path}: is no TOML: {fault}"], hint="see https://toml.io"
        ) from None


def _section(name: str, values: Any, folder: Path, faults: list[str]) -> Any:
    section = SECTIONS[name]
    if not isinstance(values, dict):
        faults.append(f"{name}: takes a section [{name}]")
        return section()
    good: dict[str, Any] = {}
    for key, value in values.items():
        check = CHECKS[name].get(key)
        if check is None:
            faults.append(_unknown(key, CHECKS[name], f"{name}."))
            continue
        try:
            good[key] = check(value, folder)
        except ValueError as fault:
            faults.append(f"{name}.{key}: {fault}")
    return section(**good)


def _unknown(name: str, known: Mapping[str, object], prefix: str) -> str:
    # Ours are words; anything else may be an api key in the wrong place.
    shown = name if _WORDS.fullmatch(name) else "…"
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"{prefix}{shown}: there is no such key; is it {prefix}{near[0]}?"
    return f"{prefix}{shown}: there is no such key"


def _check_listeners(config: Config, environ: Mapping[str, str], faults: list[str]) -> None:
    webhook, admin = config.webhook.listen, config.admin.listen
    if admin is not None and webhook == admin and (webhook.kind == "unix" or webhook.port):
        faults.append("admin.listen: is the same as webhook.listen")
    is_open = admin is not None and admin.kind == "tcp" and not is_loopback(admin.host)
    if is_open and not environ.get(REMOTE_ADMIN_VARIABLE):
        faults.append(
            "admin.listen: is not on loopback, and anybody who reaches it may read it; put a web "
            f"server with a password before it, or set ${REMOTE_ADMIN_VARIABLE}=1"
        )
