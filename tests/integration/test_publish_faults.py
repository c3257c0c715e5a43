"""The publication while its server, its connection or its rights fail: exactly once, in order."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import targets
from publishing import (
    Mirror,
    agrees_with_feed,
    published,
    publishing,
    until,
    until_equal,
)
from targets import CuttingProxy, Database

from syncd.publish import publisher, rounds
from syncd.publish import target as target_module
from syncd.publish.target import Target

# PyMySQL leaves the socket of a connection that failed to the garbage collector.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]
KINDS = [targets.Postgresql, targets.Mariadb]
VALUES = ("in_stock", "out_of_stock")


@pytest.fixture(scope="module", params=KINDS, ids=["pg", "maria"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with targets.running(request.param, durable=True) as one:
        yield one


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path / "m")) as one:
        one.item(1)
        for variant in range(1, 11):
            one.change(variant, "in_stock")
        yield one


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(publisher, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(publisher, "GATHER_S", 0.0)
    monkeypatch.setattr(rounds, "COMPARE_EVERY_S", 1000.0)


def feed_since(mirror: Mirror, seq: int) -> list[int]:
    found = mirror.db.execute("SELECT seq FROM change_log WHERE seq > ? ORDER BY seq", (seq,))
    return [row[0] for row in found]


def assert_exactly_once(mirror: Mirror, target: Database, since: int = 10) -> None:
    """Each change of the mirror is in the target once, in order."""
    feed = target.rows("changes")
    assert [row["mirror_seq"] for row in feed] == feed_since(mirror, since)
    assert agrees_with_feed(target)


@pytest.mark.parametrize("is_answer", [False, True], ids=["before", "after"])
def test_a_connection_cut_inside_of_a_commit(
    mirror: Mirror, target: Database, proxy: CuttingProxy, *, is_answer: bool
) -> None:
    """The server did not get the COMMIT, or nobody got its answer: each change is there once."""
    cuts = 0
    is_committing = False

    def request(piece: bytes) -> bool:
        nonlocal is_committing, cuts
        is_committing = b"COMMIT" in piece
        if is_committing and not is_answer and armed and cuts < 5:
            cuts += 1
            return False
        return True

    def answer(_: bytes) -> bool:
        nonlocal cuts
        if is_committing and is_answer and armed and cuts < 5:
            cuts += 1
            return False
        return True

    armed = False
    proxy.on_request, proxy.on_answer = request, answer
    with publishing(target.target_url(port=proxy.port), mirror.path) as one:
        until_equal(one, mirror, target)
        armed = True
        for number in range(20):
            mirror.change(1 + number % 10, VALUES[1 - number // 10 % 2])
            time.sleep(0.01)
        until(lambda: cuts == 5)
        until_equal(one, mirror, target)
    assert_exactly_once(mirror, target)


def test_a_publisher_killed_at_every_step(
    mirror: Mirror, target: Database, proxy: CuttingProxy
) -> None:
    """From its first request to its last one; the next one goes on from the target."""
    requests = 0
    limit = 0

    def request(_: bytes) -> bool:
        nonlocal requests
        requests += 1
        return requests <= limit

    proxy.on_request = request
    values = count()
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
    for limit in range(3, 45):
        requests = 0
        number = next(values)
        mirror.change(1 + number % 10, VALUES[1 - number // 10 % 2])
        with publishing(target.target_url(port=proxy.port), mirror.path) as one:
            until(lambda: requests > limit or published(one, mirror))  # noqa: B023 - called at once
    limit = 10**9
    with publishing(target.target_url(port=proxy.port), mirror.path) as one:
        until_equal(one, mirror, target)
    assert_exactly_once(mirror, target)


def test_a_server_that_is_killed(mirror: Mirror, target: Database, server: Any) -> None:
    """In the middle of changes, again and again."""
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        for number in range(2):
            for variant in range(1, 11):
                mirror.change(variant, VALUES[1 - number % 2])
            server.kill()
            until(lambda: one.state.state == "failing")
            assert one.state.error
            mirror.change(1, f"while it was down {number}")
            server.start()
            until_equal(one, mirror, target)
    assert_exactly_once(mirror, target)


def test_a_server_that_hangs(
    mirror: Mirror, target: Database, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network works, and nothing comes back: this side ends the transaction."""
    monkeypatch.setattr(target_module, "TRANSACTION_LIMIT_S", 0.5)
    monkeypatch.setattr(target_module, "CONNECT_LIMIT_S", 2)
    backends: list[int] = []
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        backends = [server.process.pid]
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        backends += [int(pid) for pid in children.read_text().split()]
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            mirror.change(1, "out_of_stock")
            until(lambda: one.state.state == "failing")
        finally:
            for pid in backends:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        until_equal(one, mirror, target)
    assert_exactly_once(mirror, target)


def test_a_password_that_changes(mirror: Mirror, target: Database, proxy: CuttingProxy) -> None:
    """The state names the cause, and no secret."""
    url = target.target_url(port=proxy.port)
    with publishing(url, mirror.path) as one:
        until_equal(one, mirror, target)
        role = target.name if target.server.kind == "postgresql" else f"{target.name}@'%%'"
        word = "PASSWORD" if target.server.kind == "postgresql" else "IDENTIFIED BY"
        kind = "ROLE" if target.server.kind == "postgresql" else "USER"
        target.server.execute(f"ALTER {kind} {role} {word} 'another'")
        proxy.cut()
        mirror.change(1, "out_of_stock")
        until(lambda: "check the user and the password" in (one.state.error or ""))
        assert target.password not in (one.state.error or "")
    with publishing(target.target_url(password="another"), mirror.path) as one:
        until_equal(one, mirror, target)
    assert_exactly_once(mirror, target)


def test_a_role_with_only_the_documented_rights(mirror: Mirror, target: Database) -> None:
    """It cannot create the tables, and says what to do; once they exist, it publishes."""
    server, password = target.server, "small"
    if server.kind == "postgresql":
        server.execute(f"CREATE ROLE {target.name}w LOGIN PASSWORD '{password}'")
    else:
        server.execute(f"CREATE USER {target.name}w@'%%' IDENTIFIED BY '{password}'")
        server.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {target.name}.* TO {target.name}w@'%%'"
        )
    url = target.target_url(user=f"{target.name}w", password=password)
    with publishing(url, mirror.path) as one:
        until(lambda: "syncd publish init" in (one.state.error or ""))
        with closing(Target(target.target_url(), "syncd")) as owner:
            owner.create()
        if server.kind == "postgresql":
            target.execute(
                f"""GRANT USAGE ON SCHEMA syncd TO {target.name}w;
                GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncd
                    TO {target.name}w"""
            )
        until_equal(one, mirror, target)
        mirror.change(1, None)
        until_equal(one, mirror, target)
        one._retention._next_at_s = 0.0
        mirror.change(1, "in_stock")
        until_equal(one, mirror, target)


def test_another_transaction_that_has_the_lock(
    mirror: Mirror, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher waits for its own limit, and tries again without an error."""
    monkeypatch.setattr(target_module, "LOCK_LIMIT_S", 0.2)
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        with closing(Target(target.target_url(), "syncd")) as other, other.transaction() as db:
            db.exec_driver_sql(f"SELECT * FROM {target.prefix}sources FOR UPDATE").all()  # noqa: S608
            mirror.change(1, "out_of_stock")
            time.sleep(0.6)
        until_equal(one, mirror, target)
    assert_exactly_once(mirror, target)


def test_serializable_transactions(mirror: Mirror, target: Database) -> None:
    """A server may have this default; others who write the same row lead to a repetition."""
    if target.server.kind == "postgresql":
        target.server.execute(
            f"ALTER ROLE {target.name} SET default_transaction_isolation = 'serializable'"
        )
    with publishing(target.target_url(), mirror.path) as one:
        until_equal(one, mirror, target)
        for number in range(30):
            mirror.change(1 + number % 10, VALUES[1 - number // 10 % 2])
            target.execute("UPDATE {at}sources SET last_delivery_at = {past}", past=number)
        until_equal(one, mirror, target)
    assert_exactly_once(mirror, target)


# --- PostgreSQL alone -----------------------------------------------------------------------------


def only_postgresql(server: Any) -> bool:
    return bool(server.kind == "postgresql")


def test_notify_has_the_last_change(mirror: Mirror, target: Database, server: Any) -> None:
    """Once in a transaction, when its rows are visible."""
    if not only_postgresql(server):
        return
    import psycopg  # noqa: PLC0415

    with (
        psycopg.connect(target.url(), autocommit=True) as listener,
        publishing(target.target_url(), mirror.path) as one,
    ):
        listener.execute("LISTEN syncd_changes")
        until_equal(one, mirror, target)
        mirror.change(1, "out_of_stock")
        (notified,) = listener.notifies(timeout=10, stop_after=1)
        assert notified.payload == "default 1"
        assert listener.execute("SELECT max(seq) FROM syncd.changes").fetchone() == (1,)


def test_pgbouncer_in_transaction_mode(mirror: Mirror, target: Database, server: Any) -> None:
    """Each transaction may have another connection of the server."""
    if not only_postgresql(server):
        return
    if shutil.which("pgbouncer") is None:
        pytest.skip("PgBouncer is not installed (pgbouncer)")
    folder = Path(tempfile.mkdtemp(prefix="syncd-pool-"))
    port = targets.free_port()
    (folder / "users").write_text(f'"{target.name}" "{target.password}"\n')
    (folder / "ini").write_text(
        f"""[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = plain
auth_file = {folder}/users
pool_mode = transaction
unix_socket_dir =
server_lifetime = 1
default_pool_size = 5
"""
    )
    folder.chmod(0o755)
    pool = server.run(shutil.which("pgbouncer"), folder / "ini", stderr=subprocess.DEVNULL)
    try:
        with publishing(target.target_url(port=port), mirror.path) as one:
            until_equal(one, mirror, target)
            for number in range(60):
                mirror.change(1 + number % 10, VALUES[1 - number // 10 % 2])
                time.sleep(0.03)
            until_equal(one, mirror, target)
            assert one.state.failures <= 3  # until the pooler listens
        assert_exactly_once(mirror, target)
    finally:
        pool.kill()
        pool.wait()
        shutil.rmtree(folder)


def test_a_disk_that_is_full(mirror: Mirror, target: Database, server: Any) -> None:
    """The state names it; with space again, everything is published."""
    if not only_postgresql(server):
        return
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder = Path(tempfile.mkdtemp(prefix="syncd-small-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=True)
    try:
        (space := folder / "space").mkdir()
        shutil.chown(space, server.user)
        server.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        server.execute(f"ALTER DATABASE {target.name} SET TABLESPACE small")
        with publishing(target.target_url(), mirror.path) as one:
            until_equal(one, mirror, target)
            (filler := folder / "filler").write_bytes(b"x" * (shutil.disk_usage(folder).free))
            for variant in range(100, 400):
                mirror.change(variant, f"{os.urandom(2000).hex()}")
            until(lambda: "free some disk space" in (one.state.error or ""))
            filler.unlink()
            subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
            until_equal(one, mirror, target)
        assert_exactly_once(mirror, target)
        server.execute(f"DROP DATABASE {target.name} WITH (FORCE)")
        server.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def test_a_replica_that_becomes_the_primary(
    mirror: Mirror, target: Database, server: Any, proxy: CuttingProxy
) -> None:
    """It lacks the last transactions of the old primary; they are published again."""
    if not only_postgresql(server):
        return
    folder = Path(tempfile.mkdtemp(prefix="syncd-replica-"))
    replica = targets.Postgresql(folder)
    try:
        with publishing(target.target_url(port=proxy.port), mirror.path) as one:
            until_equal(one, mirror, target)
            replica.finish(
                *(replica.bin / "pg_basebackup", "-D", replica.data, "-R", "-c", "fast", "-N"),
                *("-h", "127.0.0.1", "-p", server.port, "-U", "admin"),
            )
            replica.start()
            # It gets nothing more, as if its network were slow.
            replica.execute("ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()")
            until(lambda: not replica.execute("SELECT * FROM pg_stat_wal_receiver"))
            for variant in range(1, 11):
                mirror.change(variant, "out_of_stock")
            until_equal(one, mirror, target)
            # The old primary is gone, and so are the rows that the replica lacks.
            proxy.accepts = False
            proxy.cut()
            proxy.target = replica.port
            replica.execute("SELECT pg_promote(false)")
            until(lambda: replica.execute("SELECT pg_is_in_recovery()")[0][0] is False)
            proxy.accepts = True
            promoted = Database.__new__(Database)
            promoted.__dict__ |= {"server": replica, "name": target.name, "_engine": None}
            mirror.change(1, "in_stock")
            until_equal(one, mirror, promoted)
            assert agrees_with_feed(promoted)
            # No number is used again that a reader of the old primary may have seen.
            assert min(row["seq"] for row in promoted.rows("changes")) > 10
    finally:
        if replica.process is not None:
            replica.kill()
        shutil.rmtree(folder)
