"""A shop is another user: it can read at every moment, and strangers never."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Daemon, Site
NOBODY, SHOP = 65534, 54321


_READER = """
import os, sqlite3, sys
path, group, user = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([]); os.setgid(group); os.setuid(user)
for query in ("?mode=ro", ""):
    connection = sqlite3.connect(f"file:{path}{query}", uri=True, timeout=1)
    rows = connection.execute("SELECT count(*) FROM availability").fetchone()[0]
    connection.execute("SELECT * FROM freshness").fetchall()
    newest = connection.execute("SELECT max(seq) FROM changes").fetchone()[0]
    connection.close()
for attempt in (lambda: open(path, "ab"), lambda: open(path + "-x", "wb")):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit("this user may write there, so nothing was proved")
print(rows, newest)
"""


@pytest.fixture
def foreign(
    open_site: Callable[..., AbstractContextManager[Site]],
) -> Iterator[tuple[Site, Callable[[], tuple[int, int]]]]:
    """Give a site, and a shop of another user that looks into its mirror."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name, open_site(Path(name)) as site:
        Path(name).chmod(0o711)
        site.mirror.parent.mkdir()
        os.chown(site.mirror.parent, -1, SHOP)
        # Like systemd's StateDirectory: new files in the folder get its group.
        site.mirror.parent.chmod(0o2710)

        def inspect() -> tuple[int, int]:
            done = subprocess.run(
                [sys.executable, "-I", "-c", _READER, str(site.mirror), str(SHOP), str(NOBODY)],
                env={"PATH": os.defpath},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            rows, newest = done.stdout.split()
            return int(rows), int(newest)

        yield site, inspect


def test_another_user_can_always_read(
    foreign: tuple[Site, Callable[[], tuple[int, int]]],
) -> None:
    """While the daemon runs, stopped, killed and restarted, with read permission only."""
    site, inspect = foreign
    variants = list(site.catalogue.variants)

    def confirmed() -> None:
        """Wait for reads of this item: a waiting read would find the next change first."""
        site.until(lambda: not site.rows("SELECT 1 FROM refresh_queue"))

    daemon = site.serve()
    assert inspect() == (20, 20)
    assert daemon.deliver(site.change(variants[0], "made to order")) == "applied"
    assert inspect() == (20, 21)
    daemon.stop()
    assert inspect() == (20, 21)
    daemon = site.serve()
    assert inspect() == (20, 21)
    confirmed()
    assert daemon.deliver(site.change(variants[1], "made to order")) == "applied"
    daemon.kill()
    assert inspect() == (20, 22)
    daemon = site.serve()
    assert inspect() == (20, 22)
    confirmed()
    daemon.stop()
    assert inspect() == (20, 22)
    # A command that does a daemon's work leaves the file as a daemon does.
    site.catalogue.remove_variant(variants[2])
    assert site.syncd("reconcile-now").returncode == 0
    assert inspect() == (20, 24)  # off sale, then removed


_ASKING = """
import os, sys
from pathlib import Path
from syncd.store.connection import open_for_reading
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[3]))
print("asking", flush=True)
mirror = open_for_reading(Path(sys.argv[1]))
print(mirror.execute("SELECT count(*) FROM availability").fetchone()[0])
"""


def stopped_between_commits(daemon: Daemon) -> bool:
    """Stop a daemon, unless it is writing: a reader would wait for it, not be refused."""
    daemon.process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{daemon.process.pid}/task")
    daemon.site.until(
        lambda: all(
            (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
            for thread in threads.iterdir()
        )
    )
    with closing(sqlite3.connect(daemon.site.mirror, timeout=0)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            daemon.process.send_signal(signal.SIGCONT)
            return False
    return True


def test_a_reader_without_write_access_retries(
    foreign: tuple[Site, Callable[[], tuple[int, int]]],
) -> None:
    """It may see half of a commit, and SQLite does not retry by itself."""
    site, inspect = foreign
    daemon = site.serve()
    site.until(lambda: stopped_between_commits(daemon))  # otherwise it would repair the file
    with site.mirror.with_name(f"{site.mirror.name}-shm").open("r+b", buffering=0) as index:
        whole = index.read(48)
        index.seek(0)
        index.write(bytes(48))
        with pytest.raises(AssertionError, match="attempt to write a readonly database"):
            inspect()
        requesting = subprocess.Popen(
            [sys.executable, "-c", _ASKING, str(site.mirror), str(SHOP), str(NOBODY)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert requesting.stdout is not None
        assert requesting.stdout.readline() == "asking\n"
        with pytest.raises(subprocess.TimeoutExpired):
            requesting.wait(0.2)
        index.seek(0)
        index.write(whole)
        assert requesting.communicate(timeout=10)[0] == "20\n"
    daemon.process.send_signal(signal.SIGCONT)


def test_other_users_cannot_read(foreign: tuple[Site, Callable[[], tuple[int, int]]]) -> None:
    """Only owner and group, in every state of the files."""
    site, _ = foreign
    site.serve(filled=False)
    modes = {file.name: file.stat().st_mode & 0o777 for file in site.mirror.parent.iterdir()}
    # A user that can read the lock file could hold the lock.
    assert modes.pop(f"{site.mirror.name}.lock") == 0o600
    assert set(modes.values()) == {0o640}
    assert len(modes) == 3
    assert {file.stat().st_gid for file in site.mirror.parent.iterdir()} == {SHOP}
    assert site.socket.stat().st_mode & 0o777 == 0o660
