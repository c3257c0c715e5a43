"""The user that may write a mirror: root would leave files that the daemon's user cannot open."""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from pathlib import Path

from syncd.errors import UsageError


def require_owner(mirror: Path) -> None:
    """Raise UsageError when this is root, and the mirror or its folder is another user's.

    For a path that does not exist, the nearest existing folder above it counts.
    """
    if os.geteuid() != 0:
        return
    for path in (mirror, mirror.parent):
        owner = _owner(path)
        if owner not in {None, 0}:
            raise UsageError(
                f"root would leave files in {mirror.parent} that their owner cannot use",
                hint=f"run it as that user: {_as_user(owner or 0)}",
            )


def _owner(path: Path) -> int | None:
    """Return the owner of a path, or of the nearest existing folder above it."""
    for existing in (path, *path.parents):
        try:
            return existing.stat().st_uid
        except OSError:
            continue
    return None


def _as_user(owner: int) -> str:
    program = sys.argv[0]
    command = [program] if Path(program).name == "syncd" else [sys.executable, "-m", "syncd"]
    line = shlex.join([*command, *sys.argv[1:]])
    try:
        return f"runuser -u {shlex.quote(pwd.getpwuid(owner).pw_name)} -- {line}"
    except KeyError:
        return f"setpriv --reuid {owner} --clear-groups -- {line}"
