"""Runs the programs of the host. Functions take `Run`, so that tests need no host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from msgspec import Struct

# The unit has 300 s to start (TimeoutStartSec=).
_LIMIT_S = 330.0


class Done(Struct, frozen=True):
    """The exit code of a program, and all its output."""

    code: int
    output: str = ""


Run = Callable[[Sequence[str]], Done]


def run(command: Sequence[str]) -> Done:
    """Run a program without a terminal; a missing program has exit code 127."""
    keyless = {name: value for name, value in os.environ.items() if not name.startswith("SYNCD_")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=_LIMIT_S,
            env=keyless | {"LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "cat"},
        )
    except subprocess.TimeoutExpired:
        return Done(124, f"{command[0]} took longer than {_LIMIT_S:.0f} s")
    except OSError as error:
        return Done(127, f"{command[0]}: {error.strerror}")
    return Done(done.returncode, done.stdout.strip())
