"""The mirror under several paths: links, mounts, restored copies, and unusual names."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

# A heartbeat twice a second.
FAST = {"WATCHDOG_USEC": "1000000"}


def name_mirror(site: Site, path: Path) -> None:
    """Have the configuration name the mirror by this path."""
    site.mirror = path
    site.configure(mirror={"path": str(path)})


def post(daemon: Daemon, value: str) -> int:
    event = daemon.site.change(min(daemon.site.catalogue.variants), value)
    return daemon.post(daemon.site.body(event)).status_code


def refused(site: Site, code: int = 1) -> str:
    """Return the two lines with which `serve` refuses to start."""
    done = site.syncd("serve")
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 2, done.stderr
    return done.stderr


# Links.


@pytest.mark.parametrize("what", ["the file", "its folder", "a file not made yet"])
def test_a_link_to_the_mirror_is_followed(site: Site, what: str) -> None:
    """Log and lock lie beside the real file, and a second daemon is refused."""
    real = site.mirror
    real.parent.mkdir()
    if what == "its folder":
        (site.folder / "link").symlink_to(real.parent)
        link = site.folder / "link" / real.name
    else:
        (site.folder / "links").mkdir()
        link = site.folder / "links" / "shop.db"
        link.symlink_to(Path("..") / "mirror" / real.name)
        if what == "the file":
            site.serve().stop()
    name_mirror(site, link)
    daemon = site.serve()
    assert post(daemon, "made to order") == 200
    names = {real.name, *(f"{real.name}{end}" for end in ("-wal", "-shm", ".lock"))}
    assert {file.name for file in real.parent.iterdir()} == names
    assert site.differences == 0
    assert site.syncd("availability", "1").returncode == 1  # it can be read, and 1 is unknown
    # A sign of life may make the log longer meanwhile.
    site.until(lambda: f"syncd_log_bytes {Path(f'{real}-wal').stat().st_size}" in metrics(daemon))
    name_mirror(site, real)
    assert "uses the mirror" in refused(site, 5)
    daemon.stop()
    assert site.differences == 0


def metrics(daemon: Daemon) -> str:
    return httpx.get(f"{daemon.admin_url}/metrics", trust_env=False).text


def test_a_mirror_below_a_file_is_two_lines(idle: Site) -> None:
    """`File exists` would not say which file is in the way."""
    idle.configure(mirror={"path": str(idle.config / "mirror.db")})
    done = idle.syncd("serve")
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error.endswith("cannot be used: its folder is a file")
    assert hint.startswith("Try: check that mirror.path names a folder")


def test_a_link_into_a_missing_folder_makes_no_folder(idle: Site) -> None:
    """The folder may be a disk that is not mounted."""
    idle.mirror.parent.mkdir()
    idle.mirror.symlink_to(idle.folder / "disk" / "availability.db")
    assert "there is no folder" in refused(idle)
    assert not (idle.folder / "disk").exists()
    idle.mirror.unlink()
    idle.mirror.symlink_to(idle.mirror.name)
    assert "leads to itself" in refused(idle)
    done = idle.syncd("availability", "1")
    assert done.returncode == 1
    assert "leads to itself" in done.stderr


def test_deliveries_get_503_while_the_link_leads_elsewhere(site: Site) -> None:
    """Else a shop would read another file than the daemon writes."""
    real = site.folder / "real" / "availability.db"
    real.parent.mkdir()
    site.mirror.parent.mkdir()
    site.mirror.symlink_to(real)
    daemon = site.serve()
    other = site.folder / "other.db"
    shutil.copy(real, other)
    site.mirror.unlink()
    site.mirror.symlink_to(other)
    assert post(daemon, "made to order") == 503
    site.mirror.unlink()
    site.mirror.symlink_to(real)
    site.until(lambda: post(daemon, "made to order") == 200)


# One daemon for each mirror.


def test_a_hard_link_is_locked_too(site: Site) -> None:
    """The lock is on the file itself; daemon and `doctor` report the second name."""
    daemon, real = site.serve(), site.mirror
    other = site.folder / "elsewhere" / "other.db"
    other.parent.mkdir()
    os.link(real, other)
    name_mirror(site, other)
    assert "under another name" in refused(site, 5)
    assert {file.name for file in other.parent.iterdir()} == {"other.db", "other.db.lock"}
    assert post(daemon, "made to order") == 200
    name_mirror(site, real)
    assert "2 names" in site.syncd("doctor").stdout
    daemon.stop()
    again = site.serve()
    (output,) = again.logged("the place of the mirror may not suit shops")
    assert "2 names" in output["error"]


def test_a_mirror_mounted_elsewhere_is_locked_too(site: Site) -> None:
    """A container with the file under another path is refused, with a hint about mounts."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can mount, and util-linux must be installed")
    daemon, real = site.serve(), site.mirror
    inside = site.folder / "inside" / "mirror.db"
    inside.parent.mkdir()
    inside.touch()
    name_mirror(site, inside)

    def contained(command: str) -> subprocess.CompletedProcess[str]:
        mount = f"mount --bind '{real}' '{inside}' && exec \"$@\""
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", mount, "sh", *site.command(command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    done = contained("serve")
    assert done.returncode == 5, done.stderr
    assert "under another name" in done.stderr
    assert "mount the folder of the mirror instead of the file" in contained("doctor").stdout
    assert post(daemon, "made to order") == 200


def test_a_lock_that_is_a_link_is_refused(idle: Site) -> None:
    """It is not followed, and the hint names it."""
    idle.mirror.parent.mkdir()
    lock = idle.mirror.with_name(f"{idle.mirror.name}.lock")
    lock.symlink_to(idle.folder / "victim")
    assert f"Try: remove {lock}" in refused(idle)


# A reader without write permission.

NOBODY, SHOP = 65534, 54_321
_SHOP = """
import os, sqlite3, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[3]))
mirror = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=1)
print(mirror.execute("SELECT count(*) FROM availability").fetchone()[0])
"""
_AS_SHOP = """
import os, sys
from pathlib import Path
from syncd.errors import SyncdError
from syncd.store import Queries
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[2]))
try:
    Queries(Path(sys.argv[3]))
except SyncdError as fault:
    print(fault.message, fault.hint)
"""


@pytest.fixture
def shop(
    open_site: Callable[..., AbstractContextManager[Site]],
) -> Iterator[tuple[Site, Callable[[], str]]]:
    """Give a site, and a shop of another user, which returns what it reads or its error."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name, open_site(Path(name)) as site:
        Path(name).chmod(0o755)
        site.mirror.parent.mkdir()
        os.chown(site.mirror.parent, -1, SHOP)
        site.mirror.parent.chmod(0o2750)

        def inspect() -> str:
            command = [sys.executable, "-I", "-c", _SHOP, str(site.mirror), str(SHOP), str(NOBODY)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.stdout.strip() or done.stderr

        yield site, inspect


@pytest.mark.parametrize("is_killed", [False, True])
def test_doctor_restores_a_log_that_sqlite3_deleted(
    shop: tuple[Site, Callable[[], str]], *, is_killed: bool
) -> None:
    """The last connection to close deletes log and index; `doctor` reports it and restores them.

    While the daemon runs, sqlite3 does not close the last connection.
    """
    site, inspect = shop

    def plain() -> None:
        with closing(sqlite3.connect(site.mirror)) as administrator:
            administrator.execute("SELECT count(*) FROM availability").fetchone()

    daemon = site.serve()
    plain()
    assert inspect() == "20"
    daemon.kill() if is_killed else daemon.stop()
    assert inspect() == "20"
    plain()
    assert "attempt to write a readonly database" in inspect()
    command = [sys.executable, "-c", _AS_SHOP, str(SHOP), str(NOBODY), str(site.mirror)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "without availability.db-wal and availability.db-shm" in output
    assert "start the daemon" in output
    first = site.syncd("doctor")
    assert "availability.db-wal and availability.db-shm are missing" in first.stdout
    assert "sqlite3 -readonly" in first.stdout
    assert inspect() == "20"
    for end in ("-wal", "-shm"):
        found = site.mirror.with_name(site.mirror.name + end).stat()
        assert (found.st_mode & 0o777, found.st_gid) == (0o640, SHOP)
    assert "are missing" not in site.syncd("doctor").stdout


def test_a_restored_backup_needs_no_log(shop: tuple[Site, Callable[[], str]]) -> None:
    """Before the daemon starts, shops can read it."""
    site, inspect = shop
    site.serve().stop()
    copy = site.folder / "copy.db"
    assert site.syncd("backup", str(copy)).returncode == 0
    for file in site.mirror.parent.glob("*.db*"):
        file.unlink()
    shutil.copy(copy, site.mirror)
    os.chown(site.mirror, -1, SHOP)
    site.mirror.chmod(0o640)
    assert inspect() == "20"
    assert "are missing" not in site.syncd("doctor").stdout
    assert {file.name for file in site.mirror.parent.iterdir()} == {site.mirror.name}


# Paths that are not regular files.


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (folder, "a folder"),
        (os.mkfifo, "a named pipe"),
        (device, "a device"),
        (listener, "a socket"),
    ],
)
def test_a_mirror_path_that_is_no_file_is_refused(
    idle: Site, make: Callable[[Path], None], kind: str
) -> None:
    """By every command, at once; no file is made beside it."""
    idle.mirror.parent.mkdir()
    make(idle.mirror)
    assert f"is {kind}" in refused(idle)
    done = idle.syncd("availability", "1")
    assert done.returncode == 1
    assert f"is {kind}" in done.stderr
    assert f"is {kind}" in idle.syncd("doctor").stdout
    assert [*idle.mirror.parent.iterdir()] == [idle.mirror]
    assert not Path("/dev/null.lock").exists()


def test_a_mirror_path_may_contain_uri_characters(site: Site) -> None:
    """They are part of the name."""
    name_mirror(site, site.folder / "100%41 ?mode=rw#é&" / "a?b#c%20.db")
    daemon = site.serve()
    assert site.syncd("availability", str(min(site.catalogue.variants))).returncode == 0
    copy = site.folder / "copy ?#%41.db"
    assert site.syncd("backup", str(copy)).returncode == 0
    assert copy.exists()
    daemon.stop()
    assert len([*site.mirror.parent.iterdir()]) == 4


def test_check_config_refuses_a_folder_name_that_is_not_utf_8(idle: Site) -> None:
    """No status, page or log could show the path."""
    folder = idle.folder / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    name_mirror(idle, Path("availability.db"))
    idle.config = idle.config.rename(folder / "config.toml")
    for command in ("check-config", "serve"):
        done = subprocess.run(
            idle.command(command), capture_output=True, check=False, env=idle.environ
        )
        assert done.returncode == 2, done.stderr
        assert b"mirror.path: " in done.stderr
        assert b"name folders in UTF-8" in done.stderr or b"not UTF-8" in done.stderr
        assert b"Traceback" not in done.stderr


def test_a_file_system_without_shared_memory_is_refused(site: Site) -> None:
    """Such as a network file system: WAL cannot work, and the hint says where it can."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    site.serve().stop()
    index = site.mirror.with_name(f"{site.mirror.name}-shm")
    strace = ["strace", "--follow-forks", "--output=/dev/null", f"--trace-path={index}"]
    command = [*strace, "--inject=mmap:error=ENODEV", *site.command("serve")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace: {done.stderr}")
    assert done.returncode == 1, done.stderr
    assert "Try: SQLite's log needs shared memory" in done.stderr


def test_a_path_that_is_too_long_is_refused(idle: Site) -> None:
    """A file name whose log name is too long, or a whole path."""
    name_mirror(idle, idle.folder / ("n" * 250) / ("n" * 254))
    assert "shorter" in refused(idle)
    name_mirror(idle, idle.folder / ("n" * 200) / ("n" * 200) / ("n" * 200) / "a.db")
    assert "shorter" in refused(idle)


# Another database in its place.


def foreign(path: Path) -> None:
    """Make a database of another program, without a log as most have none."""
    with closing(sqlite3.connect(path)) as one:
        one.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)")
        one.executemany("INSERT INTO orders (note) VALUES (?)", [("x" * 500,)] * 500)
        one.commit()


def foreign_with_log(path: Path) -> None:
    """Make one that has a log, as ours has."""
    foreign(path)
    with closing(sqlite3.connect(path)) as one:
        one.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("what", ["foreign", "foreign with a log", "backup"])
def test_a_database_copied_over_the_mirror_is_never_written(site: Site, what: str) -> None:
    """The daemon reports it, and continues from the copy after its files are removed."""
    daemon, other = site.serve(environ=FAST), site.folder / "other.db"
    if what == "backup":
        assert site.syncd("backup", str(other)).returncode == 0
    else:
        (foreign if what == "foreign" else foreign_with_log)(other)
    assert post(daemon, "made to order") == 200
    whole = other.read_bytes()
    site.mirror.write_bytes(whole)
    assert post(daemon, "on its way") == 503
    reasons: list[str] = []

    def says_what_happened() -> bool:
        reasons[:] = daemon.status()["reasons"]
        return "another database was copied over the mirror" in " ".join(reasons)

    site.until(says_what_happened)
    time.sleep(2)  # some heartbeats later it still says so
    assert says_what_happened(), reasons
    assert daemon.status()["health"] == "failing"
    assert "disk space" not in " ".join(reasons)
    site.until(lambda: daemon.logged("the mirror cannot be used"))
    if what == "foreign":
        time.sleep(11)  # every job has run once
    daemon.stop()
    errors = [line["event"] for line in daemon.lines() if line["level"] in {"error", "critical"}]
    assert set(errors) == {"a delivery could not be stored", "the mirror cannot be used"}
    assert b"Traceback" not in daemon.log.read_bytes()
    assert site.mirror.read_bytes() == whole
    # The log of the mirror that is gone still lies there.
    assert "is the log of another database" in refused(site)
    assert site.mirror.read_bytes() == whole
    assert "is the log of another database" in site.syncd("doctor").stdout
    for end in ("-wal", "-shm"):
        site.mirror.with_name(site.mirror.name + end).unlink()
    if what == "backup":
        site.serve()
        assert site.syncd("reconcile-now").returncode == 0
        assert site.differences == 0
    else:
        assert "is a database, but no mirror of syncd" in refused(site)
        assert site.mirror.read_bytes() == whole


@pytest.mark.parametrize("what", ["foreign", "backup"])
def test_an_old_log_is_not_applied_to_a_restored_mirror(site: Site, what: str) -> None:
    """After a kill the log has committed pages: SQLite would apply them to any database."""
    daemon, other = site.serve(), site.folder / "other.db"
    if what == "backup":
        assert site.syncd("backup", str(other)).returncode == 0
    else:
        foreign(other)
    assert post(daemon, "made to order") == 200
    daemon.kill()
    log = site.mirror.with_name(f"{site.mirror.name}-wal")
    before = other.read_bytes(), log.read_bytes()
    other.rename(site.mirror)
    assert "is the log of another database" in refused(site)
    assert (site.mirror.read_bytes(), log.read_bytes()) == before


def test_a_killed_first_start_is_continued(site: Site) -> None:
    """Its tables are only in the log."""
    site.mirror.parent.mkdir()
    made = (
        "import sys; from pathlib import Path; from syncd.store import connection\n"
        "connection.open_for_writing(Path(sys.argv[1])); import os; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", made, str(site.mirror)], check=True)
    assert site.mirror.stat().st_size == 4096
    assert site.serve().site.differences == 0
