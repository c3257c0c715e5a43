"""Disk faults: 503 with a reason while nothing can be stored, and no stored delivery is lost.

Each case ends in the same way: the cause ends, the daemon recovers by itself, it is killed, and
every delivery that was answered 200 is in the file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from msgspec import json

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

# A heartbeat twice a second, so that a test of the watchdog is short.
FAST = {"WATCHDOG_USEC": "1000000"}


class Clerk:
    """Sends deliveries, and remembers those that were answered 200."""

    def __init__(self, site: Site, daemon: Daemon) -> None:
        self.site = site
        self.daemon = daemon
        self.stored: list[str] = []
        self._variants = cycle(site.catalogue.variants)
        self._number = 0

    def post(self) -> int:
        """Deliver something new; return the answer's code."""
        self._number += 1
        event = self.site.change(next(self._variants), f"{self._number} left")
        with httpx.Client(timeout=30, trust_env=False) as client:
            answer = self.daemon.post(self.site.body(event), client=client)
        if answer.status_code == 200:
            self.stored.append(event.uuid)
        else:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
        return answer.status_code

    def healthz(self) -> int:
        """Return the code that a load balancer sees."""
        url = self.daemon.webhook_url.replace("/webhooks/dreamship", "/healthz")
        return httpx.get(url, trust_env=False).status_code

    def check_failing(self, why: str) -> None:
        """Check that no delivery is taken, and that the answer and the status say why."""
        # A small delivery may still fit into the write-ahead log, and then is answered 200.
        self.site.until(lambda: self.post() == 503)
        assert self.healthz() == 503
        status = self.daemon.status()
        assert status["health"] == "failing"
        assert any(why in reason for reason in status["reasons"]), status["reasons"]

    def check_recovered(self) -> None:
        """Check that deliveries are taken again, and that a power failure now loses nothing."""
        self.site.until(lambda: self.healthz() == 200)
        assert self.post() == 200
        assert self.daemon.status()["health"] != "failing"
        self.daemon.kill()
        self.check_kept()
        self.site.serve(filled=False).stop()
        self.check_kept()

    def check_kept(self) -> None:
        """Check that everything answered 200 is in the file."""
        stored = {row["event_id"] for row in self.site.rows("SELECT event_id FROM deliveries")}
        assert set(self.stored) <= stored
        assert self.site.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@pytest.fixture
def clerk(idle: Site) -> Clerk:
    """Give a daemon that took a few deliveries."""
    return start(idle)


def start(site: Site) -> Clerk:
    one = Clerk(site, site.serve(filled=False, environ=FAST))
    assert [one.post() for _ in range(5)] == [200] * 5
    return one


# The disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left of a disk; return the file that has it."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return filler


def test_deliveries_get_503_while_the_disk_is_full(small_disk: Path, idle: Site) -> None:
    """A real small file system: they are stored once there is room."""
    idle.mirror = small_disk / "mirror" / "availability.db"
    idle.configure(mirror={"path": str(idle.mirror)})
    clerk = start(idle)
    filler = fill(small_disk)
    clerk.check_failing("disk is full")
    clerk.check_kept()
    clerk.daemon.stop()
    # It can start, so that it says what is wrong, and goes on as soon as it can.
    fill(small_disk)
    clerk.daemon = idle.serve(filled=False, environ=FAST)
    clerk.check_failing("disk is full")
    filler.unlink()
    clerk.check_recovered()


def test_a_read_only_disk_ends_the_start(small_disk: Path, idle: Site) -> None:
    """Exit 1 with a hint; after a remount the daemon starts."""
    idle.mirror = small_disk / "mirror" / "availability.db"
    idle.configure(mirror={"path": str(idle.mirror)})
    clerk = start(idle)
    clerk.daemon.stop()
    remount = ["mount", "-o", "remount,size=2m"]
    subprocess.run([*remount, "-r", small_disk], check=True)
    done = idle.syncd("serve")
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert "Try:" in done.stderr
    subprocess.run([*remount, "-w", small_disk], check=True)
    clerk.daemon = idle.serve(filled=False, environ=FAST)
    clerk.check_recovered()


@contextlib.contextmanager
def failing(daemon: Daemon, calls: str, error: str) -> Iterator[None]:
    """Have the kernel fail these calls of a daemon for as long as this lasts."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    tracer = subprocess.Popen(
        [
            strace,
            "--follow-forks",
            f"--attach={daemon.process.pid}",
            f"--trace={calls}",
            f"--inject={calls}:error={error}",
            "--output=/dev/null",
        ],
        stderr=subprocess.PIPE,
    )
    try:
        assert tracer.stderr is not None
        output = tracer.stderr.readline().decode()
        if "attached" not in output:
            pytest.skip(f"strace may not attach: {output}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


def test_deliveries_get_503_while_writes_fail(clerk: Clerk) -> None:
    """Until the kernel accepts writes again."""
    for calls, error in (
        ("fdatasync", "EIO"),  # what SQLite believes to be on the disk is not
        ("pwrite64", "EIO"),
        ("pwrite64", "EROFS"),  # a kernel does this with a file system that it no longer trusts
        ("pwrite64,ftruncate,fdatasync", "ENOSPC"),
    ):
        with failing(clerk.daemon, calls, error):
            clerk.check_failing("full" if error == "ENOSPC" else "disk I/O error")
        assert clerk.post() == 200
    clerk.check_recovered()


def test_deliveries_get_503_while_reads_fail(clerk: Clerk) -> None:
    """The daemon reports it, stays up and recovers by itself."""
    # Every page is read again: another connection has changed the file.
    with closing(sqlite3.connect(clerk.site.mirror)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.execute("VACUUM")
    with failing(clerk.daemon, "pread64,pwrite64", "EIO"):
        clerk.site.until(lambda: clerk.post() == 503)
        assert clerk.healthz() == 503
        done = clerk.site.syncd("status")
        assert done.returncode == 1
        assert "failing" in done.stdout
        assert "cannot be made durable" in done.stdout
    clerk.check_recovered()


# A daemon that waits for a lock as long as this, not for five seconds.
IMPATIENT = (
    "import syncd.store.connection as c; c.BUSY_TIMEOUT_S = {}; import syncd.cli; syncd.cli.main()"
)


def test_deliveries_get_503_while_another_process_holds_the_lock(
    idle: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than the busy timeout."""
    serve = [sys.executable, "-c", IMPATIENT.format(0.5), *idle.command("serve")[3:]]
    with monkeypatch.context() as patch:
        patch.setattr(idle, "command", lambda _: serve)
        clerk = start(idle)
    with closing(sqlite3.connect(idle.mirror, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        clerk.check_failing("database is locked")
        other.execute("ROLLBACK")
    clerk.check_recovered()


# The files.


def test_deliveries_get_503_while_the_files_are_moved_away(clerk: Clerk) -> None:
    """The open file has no name any more, so a delivery written to it would be lost."""
    mirror = clerk.site.mirror
    for taken in (mirror.parent, mirror, Path(f"{mirror}-wal"), Path(f"{mirror}-shm")):
        away = taken.with_name("elsewhere")
        taken.rename(away)
        # The daemon notices it without a delivery, and notices by itself that the file is back.
        clerk.site.until(lambda: clerk.healthz() == 503)
        clerk.check_failing("was deleted or replaced")
        away.rename(taken)
        clerk.site.until(lambda: clerk.healthz() == 200)
        assert clerk.post() == 200
    clerk.check_recovered()


def test_a_replaced_file_is_not_written_before_a_restart(clerk: Clerk) -> None:
    """Its log does not belong to it."""
    site = clerk.site
    backup = site.folder / "backup.db"
    with (
        closing(sqlite3.connect(site.mirror)) as source,
        closing(sqlite3.connect(backup)) as copy,
    ):
        source.backup(copy)
    assert [clerk.post() for _ in range(5)] == [200] * 5
    whole = backup.read_bytes()
    backup.rename(site.mirror)
    clerk.check_failing("was deleted or replaced")
    assert site.mirror.read_bytes() == whole
    clerk.daemon.stop()
    # Changes after the backup were lost with the deleted file; all others are there.
    clerk.stored = clerk.stored[:5]
    clerk.daemon = site.serve(filled=False, environ=FAST)
    clerk.check_kept()
    clerk.check_recovered()


def test_deleted_files_are_made_again_after_a_restart(clerk: Clerk) -> None:
    """The next sweep fills the new mirror."""
    shutil.rmtree(clerk.site.mirror.parent)
    clerk.check_failing("was deleted or replaced")
    clerk.daemon.stop()
    clerk.stored.clear()
    clerk.daemon = clerk.site.serve(filled=False, environ=FAST)
    clerk.check_recovered()


def contents(mirror: Path) -> list[bytes]:
    return [Path(f"{mirror}{end}").read_bytes() for end in ("", "-wal")]


def scribble(mirror: Path) -> None:
    with mirror.open("r+b") as file:
        file.write(b"\x00\xff" * (mirror.stat().st_size // 2))


def cut(mirror: Path) -> None:
    os.truncate(mirror, mirror.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "is_killed"), [(scribble, False), (cut, False), (scribble, True)]
)
def test_a_corrupt_file_is_refused_at_the_start(
    clerk: Clerk, damage: Callable[[Path], None], is_killed: bool
) -> None:
    """With a hint; it is not changed, since somebody may rescue data."""
    site = clerk.site
    if is_killed:
        with closing(sqlite3.connect(site.mirror)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert clerk.post() == 200  # only in the write-ahead log, which must stay unchanged too
        clerk.daemon.kill()
    else:
        clerk.daemon.stop()
    damage(site.mirror)
    before = contents(site.mirror)
    done = site.syncd("serve")
    assert done.returncode == 1
    assert "is damaged or no database" in done.stderr
    assert "move it away with its -wal and -shm" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(site.mirror) == before
    # Done as it says: a new one.
    for file in site.mirror.parent.glob("*.db*"):
        file.rename(site.folder / file.name)
    clerk.stored.clear()
    clerk.daemon = site.serve(filled=False, environ=FAST)
    clerk.check_recovered()


def test_damage_found_later_stops_all_writes(clerk: Clerk) -> None:
    """The status says that the file is damaged."""
    site = clerk.site
    clerk.daemon.stop()
    with closing(sqlite3.connect(site.mirror)) as mirror:
        page, size = (
            mirror.execute("SELECT rootpage FROM sqlite_master WHERE name = 'change_log_missed'"),
            mirror.execute("PRAGMA page_size"),
        )
        offset = (page.fetchone()[0] - 1) * size.fetchone()[0]
    with site.mirror.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 100)
    clerk.daemon = site.serve(filled=False, environ=FAST)
    assert clerk.post() == 503
    status = clerk.daemon.status()
    assert status["health"] == "failing"
    assert any("damaged" in reason for reason in status["reasons"])
    assert any("move it away" in reason for reason in status["reasons"])


def test_a_full_disk_writes_one_log_line_a_minute(clerk: Clerk) -> None:
    """However many deliveries are refused: the log may be on the same disk."""
    mirror = clerk.site.mirror
    mirror.rename(mirror.with_name("elsewhere"))
    assert {clerk.post() for _ in range(30)} == {503}
    (line,) = clerk.daemon.logged("a delivery could not be stored")
    assert (line["level"], line["refused_so_far"]) == ("error", 1)
    assert "restore the same files" in line["hint"]
    assert json.encode(line).count(b"deleted or replaced") == 1
