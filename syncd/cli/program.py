"""The name by which this program can be called again, for commands that a person copies."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

_NAME = "syncd"
# Folders of uv and pipx: while such a program runs, it is in PATH, but not in that of the shell.
_CACHES = {".cache", "archive-v0", "environments-v2"}


def program() -> str:
    """Return `syncd` if the shell finds it, else how this process was called.

    The program of a virtual environment, and one that uvx or pipx runs, is not in PATH.
    """
    called = sys.argv[0] if "/" in sys.argv[0] else shutil.which(sys.argv[0]) or sys.argv[0]
    if Path(called).name == "__main__.py":
        return f"{_short(sys.executable)} -m {_NAME}"
    if Path(called).name != _NAME or _is_found(called):
        return _NAME
    return _short(called)


def with_program(hint: str) -> str:
    """Return a hint whose commands work in the shell of this process."""
    name = program() if Path(sys.argv[0]).name == _NAME else _NAME
    return hint if name == _NAME else hint.replace(f"`{_NAME} ", f"`{name} ")


def _is_found(called: str) -> bool:
    found = shutil.which(_NAME)
    if found is not None and _CACHES & set(Path(found).parts):
        return False
    return found is not None and os.path.realpath(found) == os.path.realpath(called)


def _short(path: str) -> str:
    """Return a path for a shell, with `~` for the home folder; a relative one stays as it is."""
    home = f"{os.environ.get('HOME', '')}/"
    if len(home) > 1 and path.startswith(home):
        return f"~/{shlex.quote(path.removeprefix(home))}"
    return shlex.quote(path)
