"""Starts, reloads or restarts the daemon that systemd runs, and says why it does not start."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from syncd.errors import SyncdError
from syncd.setup.programs import Run

UNITS = ("syncd.socket", "syncd.service")
CREDENTIAL = re.compile(r"dreamship-api-keys:(/\S+)")
Started = Literal["started", "reloaded", "restarted", "unchanged"]
# A reload does not apply these; the reference says so.
_NEED_RESTART = frozenset({"webhook.listen", "webhook.path", "mirror.path", "control.socket"})
_LINES = 12


class ServiceFailed(SyncdError):
    """systemd could not start or reload the daemon."""


def is_booted(root: Path = Path("/")) -> bool:
    """Return whether systemd runs this host."""
    return (root / "run/systemd/system").is_dir()


def properties(unit: str, run: Run) -> dict[str, str]:
    """Return the properties of a unit that setup uses."""
    names = "LoadState,ActiveState,UnitFileState,Listen,LoadCredential,NeedDaemonReload"
    done = run(["systemctl", "show", unit, f"--property={names}"])
    return dict(line.split("=", 1) for line in done.output.splitlines() if "=" in line)


def are_installed(run: Run) -> bool:
    """Return whether systemd knows the units."""
    return all(properties(unit, run).get("LoadState") == "loaded" for unit in UNITS)


def credential_file(run: Run) -> Path | None:
    """Return the file from which systemd hands the api keys over, None if it does not."""
    found = CREDENTIAL.search(properties(UNITS[1], run).get("LoadCredential", ""))
    return None if found is None else Path(found[1])


def listener(run: Run) -> str:
    """Return the address of the socket unit as `host:port` or `unix:/path`, or empty text."""
    first = properties(UNITS[0], run).get("Listen", "").partition(" (")[0]
    return f"unix:{first}" if first.startswith("/") else first


def apply(changed: Collection[str], run: Run) -> Started:
    """Enable the units, and have the daemon use the configuration, of which `changed` differs.

    Returns once the daemon is ready. Raises ServiceFailed with the lines of its log.
    """
    run(["systemctl", "daemon-reload"])
    units = [properties(unit, run) for unit in UNITS]
    if any(unit.get("UnitFileState") != "enabled" for unit in units):
        _require(["systemctl", "enable", *UNITS], run)
    if any(unit.get("ActiveState") != "active" for unit in units):
        # A unit that waits for its next attempt would not read the new configuration at once.
        _require(["systemctl", "start", UNITS[0]], run)
        _require(["systemctl", "restart", UNITS[1]], run)
        return "started"
    if not changed:
        return "unchanged"
    if _NEED_RESTART.intersection(changed):
        _require(["systemctl", "restart", UNITS[1]], run)
        return "restarted"
    if credential_file(run) is not None and "api keys" in changed:
        # systemd reads a credential at the start only.
        _require(["systemctl", "restart", UNITS[1]], run)
        return "restarted"
    _require(["systemctl", "reload", UNITS[1]], run)
    return "reloaded"


def _require(command: list[str], run: Run) -> None:
    done = run(command)
    if done.code == 0:
        return
    unit = command[-1]
    log = run(["journalctl", "--no-pager", "--output=cat", f"--unit={unit}", f"--lines={_LINES}"])
    told = [line for line in log.output.splitlines() if line.startswith(("Error:", "Try:"))]
    if unit.endswith(".socket"):
        told = told or [line for line in log.output.splitlines() if "Failed" in line]
    detail = " ".join(dict.fromkeys(told)) or done.output.replace("\n", " ")
    raise ServiceFailed(
        f"`{' '.join(command)}` failed: {detail}",
        hint=f"journalctl --unit={unit}; then run `syncd setup` again: it keeps all answers",
    )
