"""Backups: consistent under load, whole or not there, and put in its place the mirror again."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

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


def test_a_backup_under_load_is_one_moment_and_can_be_put_in_place(site: Site) -> None:
    """Each copy is sound and its feed ends with its table; a daemon goes on from the last one."""
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
            ask = connection.execute
            assert ask("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert ask("PRAGMA journal_mode").fetchall() == [("delete",)]
            assert ask("PRAGMA user_version").fetchall() == [(1,)]
            assert ask(TELLS_ALL).fetchall() == [(0,)]
            before, (newest,) = newest, ask("SELECT max(seq) FROM changes").fetchone()
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


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_a_backup_replaces_nothing(shared: Daemon, tmp_path: Path, end: str) -> None:
    """Neither a file of that name, nor does it lie down beside a log that is not its own."""
    taken = tmp_path / f"copy.db{end}"
    taken.write_text("precious")
    done = shared.site.syncd("backup", str(tmp_path / "copy.db"))
    assert done.returncode == 2
    assert f"Error: {taken} exists already" in done.stderr
    assert "Try: name a file" in done.stderr
    assert taken.read_text() == "precious"
    assert [*tmp_path.iterdir()] == [taken]


def test_a_backup_that_cannot_be_written_is_told_in_two_lines(
    shared: Daemon, tmp_path: Path
) -> None:
    """A folder that is not there, or a full disk: exit code 1, and nothing is left behind."""
    for path in (tmp_path / "none" / "copy.db", Path("/dev/full/copy.db")):
        done = shared.site.syncd("backup", str(path))
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: the backup {path} cannot be written: ")
        assert len(done.stderr.splitlines()) == 2


def test_a_backup_tells_what_it_wrote(shared: Daemon, tmp_path: Path) -> None:
    """The path and how large it is; with --json, in JSON."""
    done = shared.site.syncd("backup", "--json", str(tmp_path / "copy.db"))
    size = (tmp_path / "copy.db").stat().st_size
    assert done.stdout == f'{{\n  "path": "{tmp_path}/copy.db",\n  "bytes": {size}\n}}\n'
    done = shared.site.syncd("backup", str(tmp_path / "more.db"))
    assert done.stdout == f"{tmp_path}/more.db: {size / 1e6:.1f} MB\n"


def test_what_is_not_there_is_not_backed_up(idle: Site) -> None:
    """No mirror, no copy."""
    done = idle.syncd("backup", str(idle.folder / "copy.db"))
    assert done.returncode == 1
    assert "there is no mirror" in done.stderr
    assert not (idle.folder / "copy.db").exists()
