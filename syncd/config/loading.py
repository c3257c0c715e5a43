"""TOML and environment into one frozen Config, every fault found reported together."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncd.config.checks import CHECKS, is_loopback, secret
from syncd.config.settings import (
    KEYS_CREDENTIAL,
    KEYS_VARIABLE,
    REMOTE_ADMIN_VARIABLE,
    SECTIONS,
    Config,
)
from syncd.config.values import Secret
from syncd.errors import ConfigurationError

SYSTEM_PATH = Path("/etc/syncd/config.toml")
_WORDS = re.compile(r"[A-Za-z_-]{1,40}")
_EXAMPLE = "`syncd init` writes one; or name the file with --config"


def find(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Return the configuration file to use: the first of `--config`, `$SYNCD_CONFIG`,
    `./config.toml` and `/etc/syncd/config.toml` that is given or exists.

    Raises ConfigurationError when there is none.
    """  # noqa: D205 - the search order is the promise
    if explicit:
        return Path(explicit)
    if environ.get("SYNCD_CONFIG"):
        return Path(environ["SYNCD_CONFIG"])
    local = Path("config.toml")
    for candidate in (local, SYSTEM_PATH):
        if candidate.exists():
            return candidate
    raise ConfigurationError(
        [f"no configuration: neither $SYNCD_CONFIG, {local.absolute()} nor {SYSTEM_PATH}"],
        hint="`syncd init` writes a commented one, or name yours with --config",
    )


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration in `path` with the keys of `environ`, checked whole.

    Relative paths in it start at its own folder. Raises ConfigurationError naming every fault.
    """
    document = _parsed(path)
    folder = path.absolute().parent
    faults: list[str] = []
    sections = {name: _section(name, document.get(name, {}), folder, faults) for name in SECTIONS}
    faults += [_unknown(name, SECTIONS, "") for name in document if name not in SECTIONS]
    config = Config(**sections)
    _check_listeners(config, environ, faults)
    keys, keys_from = _keys(config, environ, faults)
    if faults:
        raise ConfigurationError(
            faults, hint=f"correct {path}; config.example.toml documents every key"
        )
    return Config(**sections, keys=keys, keys_from=keys_from)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as fault:
        raise ConfigurationError(
            [f"{path}: is not UTF-8 (byte {fault.start})"], hint="save it as UTF-8"
        ) from None
    except OSError as fault:
        raise ConfigurationError([f"{path}: {fault.strerror}"], hint=_EXAMPLE) from None
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


def _keys(
    config: Config, environ: Mapping[str, str], faults: list[str]
) -> tuple[tuple[Secret, ...], str]:
    """Return the first source that is set, and its name; an empty variable is not set."""
    variable = environ.get(KEYS_VARIABLE, "")
    if variable.strip(", \t\n"):
        found = _secrets(variable.split(","), f"${KEYS_VARIABLE}", faults)
        return found, f"the environment, ${KEYS_VARIABLE}"
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    credential = Path(folder) / KEYS_CREDENTIAL
    if folder and credential.exists():
        found = _from_file(credential, f"credential {KEYS_CREDENTIAL}", faults)
        return found, f"the service manager's credential {KEYS_CREDENTIAL}"
    if config.dreamship.api_key_file is not None:
        file = config.dreamship.api_key_file
        return _from_file(file, "dreamship.api_key_file", faults), f"the file {file}"
    if config.dreamship.api_keys:
        return config.dreamship.api_keys, "the configuration, dreamship.api_keys"
    return (), "nowhere"


def _from_file(path: Path, key: str, faults: list[str]) -> tuple[Secret, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "is not UTF-8"
        # Without the name: who wrote the key itself there would find it in the log.
        faults.append(f"{key}: cannot be read: {reason}; a relative path starts at this file")
        return ()
    found = _secrets([line for line in lines if not line.lstrip().startswith("#")], key, faults)
    if not found and not any(fault.startswith(f"{key}:") for fault in faults):
        faults.append(f"{key}: holds no api key; write one a line")
    return found


def _secrets(texts: list[str], key: str, faults: list[str]) -> tuple[Secret, ...]:
    found = []
    for text in texts:
        if not text.strip():
            continue
        try:
            found.append(secret(text))
        except ValueError as fault:
            faults.append(f"{key}: {fault}")
    return tuple(dict.fromkeys(found))
