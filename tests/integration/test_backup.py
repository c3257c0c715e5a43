"""Backups: consistent under load, complete or absent, and usable as the mirror."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from syncd.errors import UsageError
from syncd.store import backup as backups

if TYPE_CHECKING:
    from conftest import Daemon, Site

TELLS_ALL = """
    SELECT count(*) FROM availability a LEFT JOIN changes c ON c.seq =
        (SELECT max(seq) FROM changes WHERE variant_id = a.variant_id)
    WHERE (c.availability, c.sellable) IS NOT (a.availability, a.sellable)
"""


@contextmanager
def load(daemon: Daemon) -> Iterator[None]:
    """Deliver changes from four connections at once, as fast as they are taken."""
    over, variants = threading.Event(), [*daemon.site.catalogue.variants]

    def deliver(mine: list[int]) -> None:
        with httpx.Client(trust_env=False) as client:
            for number in itertools.count():
                if over.is_set():
                    return
                value = ("out_of_stock", "in_stock")[number // len(mine) % 2]
                event = daemon.site.change(mine[number % len(mine)], value)
                assert daemon.post(daemon.site.body(event), client=client).status_code == 200

    threads = [threading.Thread(target=deliver, args=(variants[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_backup_under_load_is_consistent_and_can_be_restored(site: Site) -> None:
    """In each copy the feed agrees with the table; a daemon continues from the last one."""
    daemon, copies = site.serve(), [site.folder / f"copy-{number}.db" for number in range(3)]
    with load(daemon):
        for copy in copies:
            done = site.syncd("backup", str(copy))
            assert done.returncode == 0, done.stderr
    newest = 20
    for copy in copies:
        assert copy.stat().st_mode & 0o777 == 0o640
        # Read only, and from a folder where nothing can be made.
        with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as connection:
            query = connection.execute
            assert query("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert query("PRAGMA journal_mode").fetchall() == [("delete",)]
            assert query("PRAGMA user_version").fetchall() == [(1,)]
            assert query(TELLS_ALL).fetchall() == [(0,)]
            before, (newest,) = newest, query("SELECT max(seq) FROM changes").fetchone()
            assert newest > before
    assert not [*site.folder.glob("*.part"), *site.folder.glob(".*.part")]
    daemon.stop()
    shutil.rmtree(site.mirror.parent)
    site.mirror.parent.mkdir()
    copies[-1].rename(site.mirror)
    daemon = site.serve()
    variant_id = min(site.catalogue.variants)
    # A read of what changed since may come between the change and its delivery.
    outcome = daemon.deliver(site.change(variant_id, "made to order"))
    assert outcome in {"applied", "verifying", "unchanged"}
    assert site.syncd("reconcile-now").returncode == 0
    assert site.differences == 0
    assert site.rows("SELECT min(seq) AS seq FROM changes WHERE seq > ?", newest) == [
        {"seq": newest + 1}
    ]
    assert site.rows("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    daemon.stop()


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_a_backup_overwrites_no_file(shared: Daemon, tmp_path: Path, end: str) -> None:
    """Neither a file of that name, nor next to the log of another database."""
    taken = tmp_path / f"copy.db{end}"
    taken.write_text("precious")
    done = shared.site.syncd("backup", str(tmp_path / "copy.db"))
    assert done.returncode == 2
    assert f"Error: {taken} exists already" in done.stderr
    assert "Try: name a file" in done.stderr
    assert taken.read_text() == "precious"
    assert [*tmp_path.iterdir()] == [taken]


def test_a_backup_that_cannot_be_written_is_two_lines(shared: Daemon, tmp_path: Path) -> None:
    """A missing folder or a full disk: exit code 1, and no file is left."""
    for path in (tmp_path / "none" / "copy.db", Path("/dev/full/copy.db")):
        done = shared.site.syncd("backup", str(path))
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: the backup {path} cannot be written: ")
        assert len(done.stderr.splitlines()) == 2


def test_a_backup_prints_its_path_and_size(shared: Daemon, tmp_path: Path) -> None:
    """With --json, as JSON."""
    done = shared.site.syncd("backup", "--json", str(tmp_path / "copy.db"))
    size = (tmp_path / "copy.db").stat().st_size
    assert done.stdout == f'{{\n  "path": "{tmp_path}/copy.db",\n  "bytes": {size}\n}}\n'
    done = shared.site.syncd("backup", str(tmp_path / "more.db"))
    assert done.stdout == f"{tmp_path}/more.db: {size / 1e6:.1f} MB\n"


def test_a_missing_mirror_is_not_backed_up(idle: Site) -> None:
    """No file is made."""
    done = idle.syncd("backup", str(idle.folder / "copy.db"))
    assert done.returncode == 1
    assert "there is no mirror" in done.stderr
    assert not (idle.folder / "copy.db").exists()


def traced(site: Site, target: Path, *inject: str) -> subprocess.CompletedProcess[str]:
    """Run a backup in whose process the kernel fails some calls."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    strace = ["strace", "--follow-forks", "--output=/dev/null"]
    strace += [f"--inject={one}" for one in inject]
    command = [*strace, *site.command("backup", str(target))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace: {done.stderr}")
    return done


@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP", "ENOSYS", "EACCES"])
def test_a_backup_works_without_hard_links_and_modes(
    shared: Daemon, tmp_path: Path, error: str
) -> None:
    """FAT, exFAT and some shares: the copy is complete and overwrites nothing."""
    no_links = f"link,linkat:error={error}"
    target = tmp_path / "copy.db"
    done = traced(shared.site, target, no_links, "fchmod:error=EPERM")
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [*tmp_path.iterdir()] == [target]
    assert "exists already" in traced(shared.site, target, no_links).stderr


def test_a_name_taken_during_the_copy_is_not_overwritten(
    shared: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another backup, for instance; with hard links and without."""
    fill = backups._fill

    def taken_meanwhile(part: Path, source: sqlite3.Connection, *paths: Path) -> None:
        fill(part, source, *paths)
        paths[-1].write_text("precious")

    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(backups, "_fill", taken_meanwhile)
    for number in range(2):
        target = tmp_path / f"copy-{number}.db"
        with pytest.raises(UsageError, match="exists already"):
            backups.backup(shared.site.mirror, target)
        assert target.read_text() == "precious"
        monkeypatch.setattr(os, "link", no_link)
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal", ".lock"])
def test_a_backup_name_that_ends_like_a_log_is_refused(site: Site, end: str) -> None:
    """SQLite would take the copy for the log of the mirror."""
    site.serve().stop()
    target = site.mirror.with_name(site.mirror.name + end)
    target.unlink(missing_ok=True)
    (site.folder / "link").symlink_to(site.mirror.parent)
    for path in (target, site.folder / "link" / target.name):
        done = site.syncd("backup", str(path))
        assert done.returncode == 2, done.stderr
        assert "would be taken for a part of" in done.stderr or "exists already" in done.stderr
        assert not target.exists() or target.stat().st_size < 40_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_backup_leaves_no_file(
    shared: Daemon, tmp_path: Path, number: signal.Signals
) -> None:
    """In the middle of the copy; exit code 130."""
    slow = (
        "import sys, time; from syncd.store import backup as b\n"
        "b._fill = lambda *_: time.sleep(30)\n"
        "import syncd.cli; syncd.cli.main()"
    )
    command = [sys.executable, "-c", slow, *shared.site.command("backup", "x.db")[3:]]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    shared.site.until(lambda: [*tmp_path.iterdir()])
    process.send_signal(number)
    assert b"Traceback" not in process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert [*tmp_path.iterdir()] == []


def test_a_later_backup_removes_the_remains_of_a_killed_one(shared: Daemon, tmp_path: Path) -> None:
    """Not a file that a running backup writes, and no file of another program."""
    old, new = (tmp_path / f".syncd-backup-{n}-00000000.part" for n in (1, 2))
    alien = tmp_path / ".copy.db.17.part"
    for file in (old, new, alien):
        file.touch()
    for file in (old, alien):
        os.utime(file, (0, 0))
    assert shared.site.syncd("backup", str(tmp_path / "copy.db")).returncode == 0
    assert {file.name for file in tmp_path.iterdir()} == {new.name, alien.name, "copy.db"}


def test_a_backup_may_have_any_name(shared: Daemon, tmp_path: Path) -> None:
    """As long as a name with a log can be; URI characters are part of the name."""
    for name in ("n" * 247, "a?mode=ro#b%20 \u00e9.db"):
        done = shared.site.syncd("backup", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name).exists()
    assert shared.site.syncd("backup", str(tmp_path)).returncode == 2
    assert shared.site.syncd("backup", "/dev/stdout").returncode == 2
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert shared.site.syncd("backup", str(tmp_path / "dangling")).returncode == 2
    assert not (tmp_path / "nowhere").exists()
