"""Files and sockets of the daemon: their permissions, and protection against links."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Daemon, Site


@pytest.fixture(params=[0o000, 0o077], ids=["umask 000", "umask 077"])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_umask")
def test_files_and_sockets_are_for_owner_and_group(site: Site) -> None:
    """With any umask: the shop's group reads, other users do not."""
    hook, admin = site.folder / "hook.sock", site.folder / "admin.sock"
    site.configure(webhook={"listen": f"unix:{hook}"}, admin={"listen": f"unix:{admin}"})
    site.serve()
    copy = site.folder / "copy.db"
    assert site.syncd("backup", str(copy)).returncode == 0
    for path in (site.mirror, *(site.mirror.with_name(site.mirror.name + end) for end in ENDS)):
        assert mode(path) == 0o640, path
    assert mode(copy) == 0o640
    # A user that can read the lock file could hold the lock, and no daemon would start.
    assert mode(site.mirror.with_name(site.mirror.name + ".lock")) == 0o600
    assert mode(site.socket) == 0o660
    assert mode(admin) == 0o660
    # A delivery over this socket needs a valid signature too.
    assert mode(hook) == 0o666


ENDS = ("-wal", "-shm")


def test_a_link_in_place_of_the_lock_is_not_followed(idle: Site) -> None:
    """Else the pid would overwrite the target of the link."""
    victim = idle.folder / "victim"
    victim.write_text("precious")
    idle.mirror.parent.mkdir()
    idle.mirror.with_name(idle.mirror.name + ".lock").symlink_to(victim)
    done = idle.syncd("serve")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("what", ["a dead socket", "a file", "nothing"])
def test_a_link_in_place_of_a_socket_is_not_followed(idle: Site, what: str) -> None:
    """Link and target stay as they are."""
    victim = idle.folder / "victim"
    if what == "a dead socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(victim))
    elif what == "a file":
        victim.write_text("precious")
    idle.socket.symlink_to(victim)
    done = idle.syncd("serve")
    assert done.returncode == 2
    assert "control.socket" in done.stderr
    assert idle.socket.is_symlink()
    assert victim.exists() == (what != "nothing")


def test_a_file_in_place_of_a_socket_is_not_removed(idle: Site) -> None:
    """Only an abandoned socket is replaced."""
    idle.socket.write_text("precious")
    assert idle.syncd("serve").returncode == 2
    assert idle.socket.read_text() == "precious"


def test_only_one_connection_of_the_daemon_can_write(shared: Daemon) -> None:
    """With most versions of SQLite, two checkpointing connections can lose a commit."""
    assert httpx.get(f"{shared.admin_url}/").status_code == 200
    process = Path(f"/proc/{shared.process.pid}")
    flags = []
    for fd in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if fd.readlink() == shared.site.mirror:
                info = (process / "fdinfo" / fd.name).read_text()
                flags.append(int(info.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE)
    assert flags.count(os.O_RDWR) == 1
    assert os.O_RDONLY in flags  # else no reader was looked at
