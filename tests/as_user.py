"""Run one syncd command as another user: `python as_user.py UID GID COMMAND...`.

The process begins as root, because the other user may not be able to read Python's packages.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

import syncd.cli
from syncd.cli import streams

# Commands load these modules late.
_LATE = (
    "certifi",
    "encodings.idna",
    "httpcore",
    "httpx._transports.default",
    "rich.console",
    "rich.table",
)


def main() -> None:
    uid, gid, *arguments = sys.argv[1:]
    for name in (
        *syncd.cli.COMMANDS.values(),
        "syncd.daemon.services",
        "syncd.daemon.app",
        "syncd.config.environment",
    ):
        importlib.import_module(name)
    for name in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    os.setgroups([])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
    streams.prepare()
    code = syncd.cli.run(arguments)
    streams.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
