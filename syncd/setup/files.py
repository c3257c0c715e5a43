"""Writes the files of a configuration: all of them or none, each as a whole."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from syncd.errors import ConfigurationError


class NewFile(Struct, frozen=True):
    """A file to write; `before`: the content that it must still have, None: it must not exist.

    `mode`, `owner` and `group`: None keeps those of an existing file.
    """

    path: Path
    content: bytes
    before: bytes | None
    mode: int | None = None
    owner: int | None = None
    group: int | None = None


def differing(files: Sequence[NewFile]) -> list[NewFile]:
    """Return the files whose content, owner or mode differs from what is on disk."""
    return [file for file in files if file.content != file.before or not _has_rights(file)]


def write_all(files: Sequence[NewFile]) -> None:
    """Replace the files, so that a reader finds the old file or the whole new file.

    An interrupt arrives before the first or after the last replacement. Raises ConfigurationError.
    """
    prepared: list[tuple[Path, Path]] = []
    try:
        with _reported():
            for file in files:
                # A link keeps its place, and its target gets the content.
                target = file.path.resolve()
                prepared.append((_prepared(file, target), target))
        with _uninterrupted():
            for file in files:
                _require_unchanged(file)
            with _reported():
                for part, target in prepared:
                    part.replace(target)
                for folder in {target.parent for _, target in prepared}:
                    _flush(folder)
    finally:
        for part, _ in prepared:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _has_rights(file: NewFile) -> bool:
    try:
        status = file.path.stat()
    except OSError:
        return False
    return (
        file.mode in {None, stat.S_IMODE(status.st_mode)}
        and file.owner in {None, status.st_uid}
        and file.group in {None, status.st_gid}
    )


def _prepared(file: NewFile, target: Path) -> Path:
    """Return the path of a new file beside the target, on disk, with its owner and mode."""
    mode, owner, group = file.mode, file.owner, file.group
    with suppress(FileNotFoundError):
        old = target.stat()
        mode = stat.S_IMODE(old.st_mode) if mode is None else mode
        owner = old.st_uid if owner is None else owner
        group = old.st_gid if group is None else group
    fd, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with open(fd, "wb") as output:  # noqa: PTH123 - a descriptor
            output.write(file.content)
            output.flush()
            if os.geteuid() == 0:
                os.fchown(fd, -1 if owner is None else owner, -1 if group is None else group)
            os.fchmod(fd, 0o640 if mode is None else mode)
            os.fsync(fd)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _require_unchanged(file: NewFile) -> None:
    try:
        found = file.path.read_bytes()
    except FileNotFoundError:
        found = None
    if found != file.before:
        raise ConfigurationError(
            [f"{file.path} was changed by another program in the meantime; nothing is written"],
            hint="run `syncd setup` again",
        )


def _flush(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # The name may be that of a temporary file: its folder is what cannot be written.
        name = Path(error.filename).parent if isinstance(error.filename, str) else "the folder"
        raise ConfigurationError(
            [f"{name} cannot be written: {error.strerror}"],
            hint="run it as a user who may write there, or name another place with -c",
        ) from None


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Deliver Ctrl-C and a stop after the block."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
