"""Real database servers of a test session, and a proxy that cuts connections.

Each server runs on a free port in its own folder, as an ordinary user.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.config.publish import TargetUrl, parse_target_url

START_LIMIT_S = 60.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def postgresql_bin() -> Path | None:
    """Return the folder of the newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    return found[-1].parent if found else None


class Server:
    """A database server: start, kill, and databases, each with its own role."""

    kind = ""
    user = "nobody"

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self.durable = durable
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._admin: sa.Engine | None = None
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        self.log = folder / "server.log"

    def run(self, *command: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program as an ordinary user."""
        words = [str(word) for word in command]
        if os.geteuid() == 0:
            account = pwd.getpwnam(self.user)
            ids = f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"
            words = ["setpriv", *ids, "--clear-groups", *words]
        return subprocess.Popen(
            words,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
            **options,
        )

    def finish(self, *command: object) -> None:
        """Run a program as an ordinary user to its end."""
        with self.log.open("ab") as log:
            done = self.run(*command, stdout=log, stderr=log)
            assert done.wait(START_LIMIT_S) == 0, self.log.read_text()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = self.run(*self.command(), stdout=log, stderr=log)
        until = time.monotonic() + START_LIMIT_S
        while True:
            assert self.process.poll() is None, self.log.read_text()
            # First a plain connection: PyMySQL leaves the socket of a failed one to the collector.
            with contextlib.suppress(OSError, sa.exc.SQLAlchemyError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                self.execute("SELECT 1")
                return
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """End the server as a power failure does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        if self._admin is not None:
            self._admin.dispose()

    def command(self) -> list[object]:
        raise NotImplementedError

    def admin_url(self, database: str = "") -> str:
        raise NotImplementedError

    def execute(self, sql: str, *, database: str = "") -> list[Any]:
        """Run statements of the administrator, each committed by itself."""
        if database:
            engine = sa.create_engine(self.admin_url(database), poolclass=sa.pool.NullPool)
        else:
            if self._admin is None:
                self._admin = sa.create_engine(self.admin_url(), poolclass=sa.pool.NullPool)
            engine = self._admin
        rows: list[Any] = []
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            for one in sql.split(";"):
                if one.strip():
                    result = db.exec_driver_sql(one)
                    rows = list(result) if result.returns_rows else []
        return rows

    def database(self) -> Database:
        """Create a database with a role that owns it."""
        return Database(self, f"t{secrets.token_hex(6)}")


class Postgresql(Server):
    kind = "postgresql"

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        super().__init__(folder, durable=durable)
        found = postgresql_bin()
        if found is None:
            pytest.skip("PostgreSQL is not installed (postgresql)")
        self.bin = found
        self.data = folder / "data"

    def create(self) -> None:
        """Create the files."""
        self.finish(
            *(self.bin / "initdb", "-D", self.data, "-U", "admin", "-A", "trust", "--no-sync"),
            *("-E", "UTF8", "--locale=C.UTF-8"),
        )
        # The administrator comes in without a password, everybody else with one.
        (self.data / "pg_hba.conf").write_text(
            "local all all trust\nhost all admin 127.0.0.1/32 trust\n"
            "host replication admin 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )

    def command(self) -> list[object]:
        durable = [] if self.durable else ["-c", "fsync=off", "-c", "full_page_writes=off"]
        return [
            *(self.bin / "postgres", "-D", self.data, "-p", self.port, "-k", self.folder),
            *("-h", "127.0.0.1", "-c", "max_connections=60", "-c", "shared_buffers=64MB"),
            *("-c", "jit=off", *durable),
        ]

    def admin_url(self, database: str = "") -> str:
        return f"postgresql+psycopg://admin@127.0.0.1:{self.port}/{database or 'postgres'}"

    def kill(self) -> None:
        """End it; its children end once they notice."""
        super().kill()
        # The next start refuses while a child of the old one has the shared memory.
        time.sleep(0.2)

    def make(self, name: str, password: str) -> None:
        self.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD '{password}'; CREATE DATABASE {name} OWNER {name}"
        )

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Mariadb(Server):
    kind = "mysql"

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        super().__init__(folder, durable=durable)
        if shutil.which("mariadbd") is None or shutil.which("mariadb-install-db") is None:
            pytest.skip("MariaDB is not installed (mariadb-server)")
        self.data = folder / "data"

    def create(self) -> None:
        """Create the files."""
        self.finish(
            *("mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--skip-test-db"),
            *("--auth-root-authentication-method=normal", f"--user={self.owner}"),
        )

    @property
    def owner(self) -> str:
        return self.user if os.geteuid() == 0 else getpass.getuser()

    def command(self) -> list[object]:
        durable = 1 if self.durable else 0
        return [
            *("mariadbd", "--no-defaults", f"--datadir={self.data}", f"--port={self.port}"),
            *(f"--socket={self.folder}/s", "--bind-address=127.0.0.1", "--skip-name-resolve"),
            *(f"--pid-file={self.folder}/pid", f"--innodb-flush-log-at-trx-commit={durable}"),
            *("--innodb-buffer-pool-size=128M", "--innodb-log-file-size=256M"),
            *(() if self.durable else ("--innodb-flush-method=nosync", "--sync-binlog=0")),
            *("--max-connections=60", "--innodb-lock-wait-timeout=2"),
            # MariaDB 11.4 and newer encrypt by default, and then a proxy finds no COMMIT to cut.
            "--skip-ssl",
        ]

    def admin_url(self, database: str = "") -> str:
        return f"mysql+pymysql://root@localhost/{database}?unix_socket={self.folder}/s"

    def make(self, name: str, password: str) -> None:
        self.execute(
            f"CREATE DATABASE {name}; CREATE USER {name}@'%%' IDENTIFIED BY '{password}'; "
            f"GRANT ALL ON {name}.* TO {name}@'%%'"
        )

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name}")


class Database:
    """One database of a server, with the role that owns it."""

    def __init__(self, server: Any, name: str) -> None:
        self.server = server
        self.name = name
        self.password = f"pw-{secrets.token_hex(8)}"
        server.make(name, self.password)
        self._engine: sa.Engine | None = None

    def url(self, *, user: str = "", password: str = "", port: int = 0, query: str = "") -> str:
        """Return the URL for `[publish]`."""
        who = f"{user or self.name}:{password or self.password}"
        return f"{self.server.kind}://{who}@127.0.0.1:{port or self.server.port}/{self.name}{query}"

    def target_url(self, **parts: Any) -> TargetUrl:
        return parse_target_url(self.url(**parts))

    @property
    def prefix(self) -> str:
        """The beginning of the name of each table."""
        return "syncd." if self.server.kind == "postgresql" else "syncd_"

    def past(self, seconds: int) -> str:
        """Return an SQL expression for a time of the database that is so long ago."""
        if self.server.kind == "postgresql":
            return f"clock_timestamp() - interval '{seconds} s'"
        return f"utc_timestamp(6) - interval {seconds} second"

    def rows(
        self, table: str, *, order: str = "1, 2", schema: str = "syncd"
    ) -> list[dict[str, Any]]:
        """Return the rows of a view or a table, as any client sees them."""
        at = f"{schema}." if self.server.kind == "postgresql" else f"{schema}_"
        return self.query(f"SELECT * FROM {at}{table} ORDER BY {order}")  # noqa: S608

    def query(self, sql: str) -> list[dict[str, Any]]:
        if self._engine is None:
            self._engine = sa.create_engine(
                self.server.admin_url(self.name), poolclass=sa.pool.NullPool
            )
        with self._engine.connect() as db:
            return [dict(row) for row in db.exec_driver_sql(sql.replace("%", "%%")).mappings()]

    def execute(self, sql: str, *, past: int = 0) -> list[Any]:
        """Run statements of the administrator; `{at}` is the prefix, `{past}` a time."""
        sql = sql.replace("{at}", self.prefix).replace("{past}", self.past(past))
        return list(self.server.execute(sql, database=self.name))

    def drop(self) -> None:
        self.server.drop(self.name)


@contextlib.contextmanager
def running(kind: type[Server], *, durable: bool = False) -> Iterator[Any]:
    """Give a server that runs; it ends at the end."""
    folder = Path(tempfile.mkdtemp(prefix="syncd-db-"))
    try:
        server: Any = kind(folder, durable=durable)
        server.create()
        server.start()
        try:
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class CuttingProxy:
    """Passes TCP on, and cuts or holds connections as a test wants.

    `on_request` gets each piece that a client sends, and returns whether to pass it on. `on_answer`
    does the same with each piece of the server.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.on_request: Callable[[bytes], bool] = lambda _: True
        self.on_answer: Callable[[bytes], bool] = lambda _: True
        self.accepts = True
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                if not self.accepts:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                pair = client, server
                self._pairs.add(pair)
                for source, sink, name in (
                    (client, server, "on_request"),
                    (server, client, "on_answer"),
                ):
                    threading.Thread(
                        target=self._pass, args=(pair, source, sink, name), daemon=True
                    ).start()

    def _pass(
        self,
        pair: tuple[socket.socket, socket.socket],
        source: socket.socket,
        sink: socket.socket,
        name: str,
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                passes = getattr(self, name)(piece)
                if not passes:
                    break
                sink.sendall(piece)
        self._pairs.discard(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def cut(self) -> None:
        """Cut every connection now."""
        for pair in list(self._pairs):
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()
        self.cut()
