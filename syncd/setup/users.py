"""The user of the daemon, its folders, and the users of the shop that read the mirror."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from syncd.errors import UsageError
from syncd.setup.programs import Run

USER = "syncd"
# Users of a web server or of a shop, by distribution; the first that exists is the guess.
USUAL_SHOP_USERS = ("www-data", "nginx", "apache", "http", "caddy")
_SYSUSERS = ("/etc/sysusers.d/syncd.conf", "/usr/lib/sysusers.d/syncd.conf")
_TMPFILES = ("/etc/tmpfiles.d/syncd.conf", "/usr/lib/tmpfiles.d/syncd.conf")
# These serve files and pass requests on; they do not read the mirror.
_FRONTS = frozenset({"nginx", "caddy"})
_UNIT = re.compile(r"/([^/]+\.service)(?:/|$)")


def ids_of(name: str) -> tuple[int, int] | None:
    """Return the ids of a user and of its main group, None if there is no such user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return found.pw_uid, found.pw_gid


def can_create() -> bool:
    """Return whether the files that describe the user of the daemon are installed."""
    return any(Path(file).exists() for file in _SYSUSERS)


def create(run: Run) -> tuple[int, int]:
    """Return the ids of the daemon's user, created if necessary; also create the folders."""
    ids = ids_of(USER)
    if ids is None:
        done = run(["systemd-sysusers", "syncd.conf"])
        ids = ids_of(USER)
        if ids is None:
            raise UsageError(
                f"the user {USER} could not be created: {done.output or 'systemd-sysusers failed'}",
                hint="run `systemd-sysusers syncd.conf` to see why",
            )
    if any(Path(file).exists() for file in _TMPFILES):
        run(["systemd-tmpfiles", "--create", "syncd.conf"])
    return ids


def guess_shop_user() -> str:
    """Return a user of this host that probably runs the shop, or empty text."""
    return next((name for name in USUAL_SHOP_USERS if ids_of(name) is not None), "")


def members(group: str) -> list[str]:
    """Return the users that were added to a group; none if there is no such group."""
    try:
        return list(grp.getgrnam(group).gr_mem)
    except KeyError:
        return []


def is_member(user: str, group: str) -> bool:
    """Return whether a user has a group, as main group or by membership."""
    try:
        found = grp.getgrnam(group)
        return user in found.gr_mem or pwd.getpwnam(user).pw_gid == found.gr_gid
    except KeyError:
        return False


def add_member(user: str, group: str, run: Run) -> bool:
    """Add a user to a group; returns whether it was missing. Raises UsageError if it fails."""
    if is_member(user, group):
        return False
    done = run(["gpasswd", "--add", user, group])
    if done.code:
        raise UsageError(
            f"{user} could not be added to the group {group}: {done.output}",
            hint=f"gpasswd --add {user} {group}",
        )
    return True


def without_group(users: Sequence[str], group: str, proc: Path = Path("/proc")) -> list[str]:
    """Return the services of users that run without the group, until they are restarted.

    A program outside a service is named `NAME (process PID)`.
    """
    try:
        wanted = str(grp.getgrnam(group).gr_gid)
    except KeyError:
        return []
    uids = {str(ids[0]) for user in users if (ids := ids_of(user)) is not None}
    return sorted(set(_stale(proc, uids, wanted)))


def _stale(proc: Path, uids: set[str], gid: str) -> Iterator[str]:
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            lines = (folder / "status").read_text(errors="replace").splitlines()
            cgroup = (folder / "cgroup").read_text(errors="replace")
        except OSError:
            continue  # it has ended
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if fields.get("Uid", "").split("\t")[0] not in uids:
            continue
        groups = {*fields.get("Groups", "").split(), fields.get("Gid", "").split("\t")[0]}
        name = fields.get("Name", "")
        if gid in groups or name in _FRONTS:
            continue
        unit = _UNIT.findall(cgroup)
        is_of_user = bool(unit) and unit[-1].startswith("user@")
        yield unit[-1] if unit and not is_of_user else f"{name} (process {folder.name})"
