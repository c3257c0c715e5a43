"""The folder, the ports and the browser of a demo."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import NamedTuple

from syncd.demo.requests import FOLDER_PREFIX, running_demos
from syncd.errors import UsageError
from syncd.http_server.sockets import bind_tcp

# The files that a demo leaves in its folder; the next demo in the same folder replaces them.
_FILES = ("availability.db", "availability.db-wal", "availability.db-shm", "daemon.log")
_CONFIG = "config.toml"


class Folders(NamedTuple):
    """The `folder` of the mirror, and the folder of the `sockets`; by default the same one.

    A socket has a short path, also if that of the folder is long, and other commands find it.
    """

    folder: Path
    sockets: Path


class Ports(NamedTuple):
    """The ports of one demo; 0 takes a free one."""

    webhook: int = 0
    status_page: int = 0
    dreamship: int = 0

    @classmethod
    def starting_at(cls, port: int | None) -> Ports:
        """Return this port and the next two; raises ConfigurationError if one is in use."""
        if port is None:
            return cls()
        for number in range(port, port + 3):
            bind_tcp("127.0.0.1", number, key="--port").close()
        return cls(port, port + 1, port + 2)


def make_folders(chosen: Path | None) -> Folders:
    """Make the folders of a demo; raises UsageErrors if a folder cannot be used."""
    try:
        made = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    except OSError as error:
        raise UsageError(
            f"there is no folder to run in: {error.strerror}",
            hint="set TMPDIR to a folder that this user can write",
        ) from error
    if chosen is None:
        return Folders(made, made)
    try:
        _prepare(chosen)
    except OSError as error:
        made.rmdir()
        raise UsageError(
            f"--folder: {chosen} cannot be used: {error.strerror}",
            hint="name a folder that this user can write",
        ) from error
    except UsageError:
        made.rmdir()
        raise
    return Folders(chosen.resolve(), made)


def _prepare(folder: Path) -> None:
    """Make a folder, or remove the mirror of an earlier demo from it, and nothing else."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(
            f"--folder: {folder} is a file", hint="name an empty folder, or a new one"
        ) from None
    found = {path.name for path in folder.iterdir()}
    config = folder / _CONFIG
    if found and not (config.is_file() and "`syncd demo`" in config.read_text(errors="replace")):
        raise UsageError(
            f"--folder: {folder} has other files than those of a demo",
            hint="name an empty folder, or one of an earlier demo",
        )
    if any(Path(demo.place.folder) == folder.resolve() for demo in running_demos()):
        raise UsageError(
            f"--folder: a demo runs in {folder} already", hint="end it, or name another folder"
        )
    for name in (*_FILES, _CONFIG):
        (folder / name).unlink(missing_ok=True)


def open_in_browser(url: str) -> bool:
    """Open a page; return whether this host has a browser with windows.

    A browser that needs the terminal would draw over the demo.
    """
    has_windows = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if not has_windows and sys.platform == "linux":
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    subprocess.Popen(  # it may run until the person closes the browser
        [sys.executable, "-m", "webbrowser", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return True
