"""Finds places of a mirror that work for the daemon, but maybe not for a shop."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from syncd.store.files import resolve

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
# Hosts and virtual machines that share such a file system do not share the memory of its files.
_SHARED = {
    "9p",
    "afs",
    "ceph",
    "cifs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "virtiofs",
}
_LOCAL_FUSE = {"fuse.fuse-overlayfs"}


class PlaceWarning(Struct, frozen=True):
    """One problem that a shop may have with the place of a mirror, and its solution."""

    message: str
    hint: str


class Mount(Struct, frozen=True):
    """One line of the kernel's list of mounts."""

    point: str
    kind: str


def mounts(text: str) -> list[Mount]:
    """Parse the kernel's list (proc_pid_mountinfo(5)); a later line covers an earlier one."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) > 4 and kinds[0]:  # noqa: PLR2004 - the fifth is the mount point
            point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
            found.append(Mount(point, kinds[0]))
    return found


def place_warnings(path: Path) -> list[PlaceWarning]:
    """Return the problems with the place of the mirror at `path`, as far as they can be found.

    The mirror is not opened: a process that closes a file loses SQLite's locks on it.
    """
    real = resolve(path)
    found = []
    names = real.stat().st_nlink
    if names > 1:
        found.append(
            PlaceWarning(
                f"{real} is one of {names} names of the same file (hard links), and the log of the "
                "daemon is only beside this name",
                "remove the other names; copy a mirror with `syncd backup`",
            )
        )
    try:
        known = mounts(_MOUNTS.read_text(errors="surrogateescape"))
    except OSError:
        return found
    around = [mount for mount in known if _is_within(str(real), mount.point)]
    if not around:
        return found
    nearest = max(reversed(around), key=lambda mount: len(mount.point))
    if nearest.point == str(real):
        found.append(
            PlaceWarning(
                f"{real} is mounted as a single file: its -wal and -shm, with the newest content, "
                "stay on this side of the mount",
                "mount the folder of the mirror instead of the file",
            )
        )
    is_fuse = nearest.kind.startswith("fuse") and nearest.kind not in _LOCAL_FUSE
    if nearest.kind in _SHARED or is_fuse:
        found.append(
            PlaceWarning(
                f"{real} is on a {nearest.kind} file system, where processes may not share the "
                "memory that SQLite's log needs",
                "put the mirror on a local disk or a volume of this host",
            )
        )
    return found


def _is_within(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
