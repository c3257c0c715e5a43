"""Starts, reloads or restarts the daemon that systemd runs, and says why it does not start."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from syncd.errors import SyncdError
from syncd.setup.programs import Run

UNITS = ("syncd.socket", "syncd.service")
_CREDENTIAL = re.compile(r"^LoadCredential=dreamship-api-keys:(/\S+)", re.MULTILINE)
Started = Literal["started", "reloaded", "restarted", "unchanged"]
# A reload does not apply these; the reference says so.
_NEED_RESTART = frozenset({"webhook.listen", "webhook.path", "mirror.path", "control.socket"})
_LINES = 30


class ServiceFailed(SyncdError):
    """systemd could not start or reload the daemon."""


def is_booted(root: Path = Path("/")) -> bool:
    """Return whether systemd runs this host."""
    return (root / "run/systemd/system").is_dir()


def properties(unit: str, run: Run) -> dict[str, str]:
    """Return the properties of a unit that setup uses."""
    names = "LoadState,ActiveState,UnitFileState,Listen"
    done = run(["systemctl", "show", unit, f"--property={names}"])
    return dict(line.split("=", 1) for line in done.output.splitlines() if "=" in line)


def are_installed(run: Run) -> bool:
    """Return whether systemd knows the units."""
    return all(properties(unit, run).get("LoadState") == "loaded" for unit in UNITS)


def credential_file(run: Run) -> Path | None:
    """Return the file from which systemd hands the api keys over, None if it does not."""
    # Not every version of `systemctl show` has it.
    found = _CREDENTIAL.findall(run(["systemctl", "cat", UNITS[1]]).output)
    return Path(found[-1]) if found else None


def has_variable(name: str, run: Run) -> bool:
    """Return whether the unit sets a variable of the environment."""
    return f"{name}=" in run(["systemctl", "show", UNITS[1], "--property=Environment"]).output


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
    # systemd hands a credential over at the start only, and a reload cannot check it.
    if _NEED_RESTART.intersection(changed) or credential_file(run) is not None:
        _require(["systemctl", "restart", UNITS[1]], run)
        return "restarted"
    _require(["systemctl", "reload", UNITS[1]], run)
    return "reloaded"


def _require(command: list[str], run: Run) -> None:
    done = run(command)
    if done.code == 0:
        return
    unit = command[-1]
    run(["journalctl", "--sync"])
    newest = ["--since=-2min", f"--lines={_LINES}"]
    log = run(["journalctl", "--no-pager", "--output=cat", f"--unit={unit}", *newest])
    lines = log.output.splitlines()
    errors = _after("Error: ", lines) or [line for line in lines if "ailed" in line][-4:]
    hints = _after("Try: ", lines) or [f"journalctl --unit={unit}"]
    detail = " ".join("; ".join(errors or [done.output]).split())
    raise ServiceFailed(
        f"{unit} cannot {command[1]}: {detail}",
        hint=f"{'; '.join(hints)}; then run `syncd setup` again: it keeps all answers",
    )


def _after(mark: str, lines: Sequence[str]) -> list[str]:
    """Return the ends of the lines with a mark, each once: the unit starts again and again."""
    found = (line.removeprefix(mark) for line in lines if line.startswith(mark))
    return [*dict.fromkeys(found)]
