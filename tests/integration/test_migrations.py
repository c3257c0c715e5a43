"""Upgrades from every released schema, refused downgrades, and an interrupted migration."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from schemas.dump import FOLDER, dump, fixture, schema

from syncd.store import Database, chains

if TYPE_CHECKING:
    from conftest import Site

FIXTURES = sorted(FOLDER.glob("*.sql"))
VIEWS = ("availability", "changes", "freshness")
# A future step that rewrites much, reports when it is half done, and waits to be killed.
_TOMORROW = """
import sys, time
from datetime import timedelta
from pathlib import Path
from syncd.store import Database, migrations

@migrations.migrations()
def tomorrow(db):
    db.conn.execute("PRAGMA cache_size = 5")  # so that half a transaction reaches the log
    db.conn.execute("ALTER TABLE variants ADD COLUMN more TEXT")
    db.conn.execute("UPDATE variants SET more = hex(randomblob(20000))")
    db.conn.execute("DROP VIEW freshness")
    if sys.argv[2:] == ["stop"]:
        print("half done", flush=True)
        time.sleep(60)
    db.conn.execute("CREATE VIEW freshness AS SELECT 'new' AS daemon_seen_at")

database = Database(Path(sys.argv[1]))
database.open()
database.close()
"""


def make(mirror: Path, script: str) -> None:
    """Make a mirror from a dump, and leave it as a daemon that was stopped leaves it."""
    mirror.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(mirror)
    connection.executescript(script)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    mirror.chmod(0o640)


def found(
    reader: sqlite3.Connection, columns: dict[str, str] | None = None
) -> dict[str, list[Any]]:
    """Return all that the contract shows, or only these columns of each view."""
    columns = columns or dict.fromkeys(VIEWS, "*")
    return {
        view: reader.execute(f"SELECT {columns[view]} FROM {view}").fetchall()  # noqa: S608
        for view in VIEWS
    }


def columns_of(reader: sqlite3.Connection) -> dict[str, str]:
    """Return the columns of each view; a later version may add some."""
    return {
        view: ", ".join(
            column[0]
            for column in reader.execute(f"SELECT * FROM {view} LIMIT 0").description  # noqa: S608
        )
        for view in VIEWS
    }


def tables(mirror: Path) -> list[str]:
    with closing(sqlite3.connect(f"{mirror.as_uri()}?mode=ro", uri=True)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in reader.execute("SELECT sql FROM sqlite_master ORDER BY name")]


def test_the_schema_of_this_version_is_recorded() -> None:
    """The next version is tested against it; if this fails, see dump.py."""
    stored = fixture()
    assert stored.exists(), f"run `python tests/schemas/dump.py`, which writes {stored.name}"
    assert schema(stored.read_text()) == schema(dump()), (
        "the schema changed: before the release run `python tests/schemas/dump.py`; "
        "a released step is never edited, add one"
    )


@pytest.mark.parametrize("script", FIXTURES, ids=lambda path: path.stem)
def test_an_upgrade_keeps_all_rows_beside_a_reader(site: Site, script: Path) -> None:
    """The reader's transaction sees the old state, then the same rows; the daemon serves."""
    make(site.mirror, script.read_text())
    with closing(sqlite3.connect(f"{site.mirror.as_uri()}?mode=ro", uri=True, timeout=1)) as reader:
        reader.execute("BEGIN")
        before, columns = found(reader), columns_of(reader)
        assert len(before["availability"]) == 20
        assert len(before["changes"]) > 20
        database = Database(site.mirror)
        database.open()
        assert found(reader) == before
        reader.execute("COMMIT")
        assert found(reader, columns) == before
        database.close()
        assert found(reader, columns) == before
        daemon = site.serve(filled=False)
        assert daemon.deliver(site.change(min(site.catalogue.variants), "low_stock"))
        assert daemon.status()["quarantined"] == 2
        daemon.stop()
        after = found(reader)["changes"]
        stored = {row[0]: row for row in after}
        assert all(stored[row[0]] == row for row in before["changes"])
        assert min(set(stored) - {row[0] for row in before["changes"]}) > before["changes"][-1][0]


def test_a_mirror_from_the_middle_of_a_version_is_migrated(tmp_path: Path) -> None:
    """A checkout between two releases made it."""
    now, then = tmp_path / "now.db", tmp_path / "then.db"
    make(now, fixture().read_text())
    undone = """DROP TABLE webhook_states;
                CREATE UNIQUE INDEX deliveries_once ON deliveries (event_id, told);
                CREATE INDEX deliveries_by_variant ON deliveries (variant_id);
                DROP INDEX deliveries_of_variants;
                DROP INDEX deliveries_of_none;
                DELETE FROM _sqlite_migrations WHERE name != 'first_contract';"""
    make(then, fixture("0.1.0").read_text() + undone)
    assert tables(then) != tables(now)
    database = Database(then)
    database.open()
    database.close()
    assert tables(then) == tables(now)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("PRAGMA user_version = 2", r"made by a newer syncd \(contract 2; this version has 1\)"),
        (
            """INSERT INTO _sqlite_migrations (migration_set, name, applied_at)
               VALUES ('syncd', 'of_tomorrow', '')""",
            r"made by a newer syncd \(its schema has of_tomorrow\)",
        ),
    ],
    ids=["contract", "schema"],
)
def test_a_downgrade_is_refused(idle: Site, change: str, says: str) -> None:
    """With a hint, before any write."""
    make(idle.mirror, f"{fixture().read_text()};{change}")
    before = idle.mirror.read_bytes()
    for command in ("serve", "reconcile-now"):
        done = idle.syncd(command)
        assert done.returncode == 1
        error, hint = done.stderr.splitlines()
        assert re.fullmatch(f"Error: .*{says}", error)
        assert hint == "Try: install the newer version again, or restore an older backup"
    assert idle.mirror.read_bytes() == before


def test_an_interrupted_migration_leaves_no_trace(tmp_path: Path) -> None:
    """After SIGKILL the old schema is complete, and the next start repeats the step."""
    mirror = tmp_path / "availability.db"
    make(mirror, fixture().read_text())
    today = tables(mirror)
    command = [sys.executable, "-c", _TOMORROW, str(mirror)]
    with closing(sqlite3.connect(f"{mirror.as_uri()}?mode=ro", uri=True, timeout=1)) as reader:
        before = found(reader)
        with subprocess.Popen([*command, "stop"], stdout=subprocess.PIPE, text=True) as upgrade:
            assert upgrade.stdout is not None
            assert upgrade.stdout.readline() == "half done\n"
            assert mirror.with_name("availability.db-wal").stat().st_size > 400_000
            assert found(reader) == before
            upgrade.kill()
        assert found(reader) == before
    assert tables(mirror) == today
    database = Database(mirror)
    database.open()
    database.close()
    assert tables(mirror) == today
    subprocess.run(command, check=True)
    assert tables(mirror) != today
    with closing(sqlite3.connect(mirror)) as connection:
        assert connection.execute("SELECT count(*) FROM variants WHERE more > ''").fetchall() == [
            (20,)
        ]
        assert connection.execute("SELECT * FROM freshness").fetchall() == [("new",)]


def test_a_command_on_a_mirror_of_an_older_version_asks_to_restart_the_daemon(idle: Site) -> None:
    """The package is upgraded and the daemon is not restarted: nothing is wrong with the file."""
    make(idle.mirror, fixture("0.1.0").read_text())
    done = idle.syncd("explain", "48005")
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert "an older version of syncd made" in error
    assert hint == "Try: start or restart the daemon of this version; it upgrades the mirror"
    assert idle.syncd("availability", "48005").returncode == 0


def test_an_upgrade_gives_no_id_of_a_deleted_row_again(tmp_path: Path) -> None:
    """Version 0.1.0 deletes the newest deliveries too, and keeps older quarantined ones."""
    mirror = tmp_path / "availability.db"
    make(mirror, fixture("0.1.0").read_text())
    with closing(sqlite3.connect(mirror)) as older, older:
        older.execute("DELETE FROM deliveries WHERE delivery_id > 2")
    database = Database(mirror)
    database.open()
    connection = database._connection
    assert connection is not None
    assert chains.next_delivery_id(connection) == 8
    assert chains.next_seq(connection) == 26
    database.close()
