"""The publication of a running daemon, its commands, and everything that names its state."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pymysql
import pytest
import targets
from conftest import Daemon, Site, opened
from documents import PACKAGE, PUBLISH, ROOT, code_of
from publishing import COLUMNS, comparable, target_view
from targets import Database

pytestmark = pytest.mark.long

EXAMPLES = PACKAGE / "examples"
VALUES = ("out_of_stock", "in_stock")


@pytest.fixture(scope="module", params=[targets.Postgresql, targets.Mariadb], ids=["pg", "maria"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with targets.running(request.param) as one:
        yield one


def configure(site: Site, target: Database, **keys: Any) -> None:
    site.configure(publish={"url": target.url(), **keys})


def mirror_view(site: Site, name: str) -> list[dict[str, Any]]:
    rows = site.rows(f"SELECT * FROM {name} ORDER BY 1")  # noqa: S608 - a view
    for row in rows:
        if "source" in row:
            row["value_source"] = row.pop("source")
    return [{key: comparable(key, row[key]) for key in COLUMNS[name]} for row in rows]


def is_equal(site: Site, target: Database) -> bool:
    return all(mirror_view(site, name) == target_view(target, name) for name in COLUMNS)


def until_equal(site: Site, daemon: Daemon, target: Database) -> None:
    site.until(
        lambda: (
            (one := daemon.status()["publish"])["state"] == "active"
            and (not one["copying"] and one["lag_seconds"] == 0)
        )
    )
    site.until(lambda: is_equal(site, target), within_s=30)


def change(site: Site, daemon: Daemon, number: int) -> None:
    variants = sorted(site.catalogue.variants)
    for index in range(number):
        variant = site.catalogue.variants[variants[index % len(variants)]]
        daemon.deliver(site.change(variant.variant_id, VALUES[variant.availability == VALUES[0]]))


def test_a_daemon_publishes_and_goes_on_after_a_kill(site: Site, target: Database) -> None:
    """The target equals the mirror and Dreamship; status, metrics and commands say so."""
    (site.folder / "skus.csv").write_text("sku,variant_id\nTEE,1\nnone,99999\n")
    site.configure(catalog={"listings": "skus.csv"})
    configure(site, target)
    daemon = site.serve()
    until_equal(site, daemon, target)
    # Variants that were read after the first fill of the target are in its feed.
    seq = daemon.status()["publish"]["seq"] + 10
    change(site, daemon, 10)
    until_equal(site, daemon, target)
    status = daemon.status()["publish"]
    assert (status["seq"], status["error"], status["source"]) == (seq, None, "default")
    metrics = httpx.get(daemon.admin_url + "/metrics", trust_env=False).text
    assert 'syncd_publish_state{state="active"} 1.0' in metrics
    assert f"syncd_publish_seq {seq}.0" in metrics
    done = site.syncd("publish", "status", "--json")
    shown = json.loads(done.stdout)
    assert done.returncode == 0
    assert shown["publish"]["seq"] == shown["target"]["seq"] == seq
    assert shown["target"]["is_this_mirror"]
    assert "this mirror, epoch 1" in site.syncd("publish", "status").stdout
    found = json.loads(site.syncd("doctor", "--json").stdout)["checks"]
    checks = {one["check"]: one["verdict"] for one in found}
    assert checks["the target of [publish] can be used"] == "pass"
    assert checks["the role may write the target"] == "pass"
    assert checks["this mirror has the lease of its source"] == "pass"
    has_file = "this host has the SKUs of the target"
    assert has_file not in checks
    site.configure(catalog={"listings": ""})
    found = json.loads(site.syncd("doctor", "--json").stdout)["checks"]
    assert (has_file, "warn") in {(one["check"], one["verdict"]) for one in found}
    site.configure(catalog={"listings": "skus.csv"})
    daemon.kill()
    daemon = site.serve(filled=False)
    change(site, daemon, 3)
    until_equal(site, daemon, target)
    assert daemon.status()["publish"]["epoch"] == 2
    daemon.stop()


def test_killed_under_load_nothing_is_lost(site: Site, target: Database) -> None:
    """SIGKILL at any moment, again and again; the feed leads to the rows."""
    if target.server.kind != "postgresql":
        return
    configure(site, target)
    daemon = site.serve()
    until_equal(site, daemon, target)
    numbers = count()
    variants = sorted(site.catalogue.variants)
    for _ in range(2):
        with daemon.loaded(variants, VALUES, numbers):
            time.sleep(0.7)
            daemon.kill()
        daemon = site.serve(filled=False)
    until_equal(site, daemon, target)
    feed = [row["mirror_seq"] for row in target.rows("changes")]
    assert len(set(feed)) == len(feed)
    daemon.stop()


def test_another_server_after_a_reload(site: Site, target: Database, server: Any) -> None:
    """The publication starts again only if its configuration changed."""
    configure(site, target)
    daemon = site.serve()
    until_equal(site, daemon, target)
    site.configure(log={"level": "debug"})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: len(daemon.logged("reloaded")) == 1)
    assert len(daemon.logged("the lease of the published source was taken")) == 1
    other = server.database()
    configure(site, other, schema="another", source="b")
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: len(daemon.logged("the lease of the published source was taken")) == 2)
    site.until(lambda: len(other.rows("availability", schema="another")) == 20)
    site.settings["publish"] = {}
    site.configure()
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: daemon.status()["publish"] is None)
    daemon.stop()
    other.drop()


def test_a_target_that_fails_delays_nothing_and_is_masked(site: Site, target: Database) -> None:
    """Deliveries are answered, the daemon stops in time, and no output has a secret."""
    site.configure(publish={"url": target.url(user="nobody", password="s3cret-word")})
    daemon = site.serve()
    site.until(lambda: "check the user" in (daemon.status()["publish"]["error"] or ""))
    change(site, daemon, 3)
    assert daemon.status()["publish"]["state"] == "failing"
    assert daemon.status()["publish"]["lag_seconds"] > 0
    shown = [
        site.syncd(*words)
        for words in (("check-config",), ("publish", "status"), ("doctor",), ("status",))
    ]
    assert shown[1].returncode == 1
    texts = [done.stdout + done.stderr for done in shown] + [daemon.log.read_text()]
    texts.append(httpx.get(daemon.admin_url + "/status.json", trust_env=False).text)
    assert not any("s3cret" in text for text in texts)
    started = time.monotonic()
    daemon.stop()
    assert time.monotonic() - started < 10
    assert b"s3cret" not in site.bytes_on_disk()


def test_two_daemons_and_a_take_over(site: Site, target: Database, tmp_path: Path) -> None:
    """The second one is fenced; an operator gives it the lease; the first one writes no more."""
    if target.server.kind != "postgresql":
        return
    configure(site, target)
    daemon = site.serve()
    until_equal(site, daemon, target)
    (second_folder := tmp_path / "second").mkdir()
    second = Site(second_folder, site.api, site.settings["dreamship"]["base_url"])
    configure(second, target)
    other = second.serve()
    site.until(lambda: other.status()["publish"]["state"] == "fenced")
    done = second.syncd("publish", "take-over")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    done = second.syncd("publish", "take-over", "--yes")
    assert done.returncode == 0, done.stderr
    site.until(lambda: other.status()["publish"]["state"] == "active")
    epoch = other.status()["publish"]["epoch"]
    done = second.syncd("publish", "take-over")
    assert done.stdout == "this mirror has the lease of default already\n"
    assert other.status()["publish"]["epoch"] == epoch
    change(site, daemon, 1)
    site.until(lambda: daemon.status()["publish"]["state"] == "fenced")
    assert site.syncd("publish", "status").returncode == 1
    daemon.stop()
    other.stop()
    second.close()


def test_the_statements_of_init_create_the_tables(site: Site, target: Database) -> None:
    """An administrator runs what `init --print` prints; `init` may run again."""
    configure(site, target)
    printed = site.syncd("publish", "init", "--print")
    assert printed.returncode == 0, printed.stderr
    owner = f"SET ROLE {target.name};" if target.server.kind == "postgresql" else ""
    target.execute(owner + printed.stdout)
    assert target.rows("availability") == []
    done = site.syncd("publish", "init")
    assert (done.returncode, done.stdout) == (0, "the tables exist in syncd, version 1\n")
    target.execute("INSERT INTO {at}schema_version VALUES (99)")
    done = site.syncd("publish", "init")
    assert done.returncode == 1
    assert "a newer syncd made the tables" in done.stderr


def test_the_demo_publishes(site: Site, target: Database) -> None:
    """The target follows live, and equals Dreamship at the end."""
    done = site.syncd("demo", "--seconds", "5", "--publish", target.url(), config=False)
    assert done.returncode == 0, done.stderr
    assert "0 differences between target and source." in done.stdout
    assert "target: 0." in done.stderr
    assert target.password not in done.stdout + done.stderr
    assert len(target.rows("availability", schema="syncd_demo")) > 100


def test_the_demo_ends_at_once_if_it_cannot_create_its_tables(site: Site, target: Database) -> None:
    """With the cause, and with the schema that it needs."""
    password = "small"
    if target.server.kind == "postgresql":
        target.server.execute(f"CREATE ROLE {target.name}d LOGIN PASSWORD '{password}'")
    else:
        target.server.execute(f"CREATE USER {target.name}d@'%%' IDENTIFIED BY '{password}'")
    url = target.url(user=f"{target.name}d", password=password)
    done = site.syncd("demo", "--seconds", "5", "--publish", url, config=False)
    assert done.returncode == 1
    assert "Error: the target of --publish cannot be used: " in done.stderr
    assert "denied" in done.stderr
    assert "the demo creates the schema syncd_demo" in done.stderr
    assert "delivering" not in done.stderr


def test_the_status_of_a_target_without_tables_names_the_command(
    site: Site, target: Database
) -> None:
    """And no line of SQL."""
    configure(site, target)
    done = site.syncd("publish", "status")
    assert done.returncode == 1
    assert "Error: the tables do not exist\n" in done.stderr
    assert "syncd publish init" in done.stderr


def test_commands_without_a_target_say_so(site: Site) -> None:
    """And name the key."""
    done = site.syncd("publish", "status")
    assert done.returncode == 2
    assert "publish.url" in done.stderr


# --- documents and examples ----------------------------------------------------------------------


class Filled:
    """A target that a running daemon has filled, with the SKUs ONE (sellable) and TWO."""

    def __init__(self, site: Site, target: Database) -> None:
        self.site = site
        self.target = target
        first, second = sorted(site.catalogue.variants)[:2]
        for variant, value in ((first, "in_stock"), (second, "out_of_stock")):
            site.catalogue.set_availability(variant, value)
        (site.folder / "skus.csv").write_text(f"sku,variant_id\nONE,{first}\nTWO,{second}\n")
        site.configure(catalog={"listings": "skus.csv"})
        configure(site, target)
        self.daemon = site.serve()
        until_equal(site, self.daemon, target)
        site.until(lambda: target.rows("freshness", order="1")[0]["daemon_seen_at"])


@pytest.fixture(scope="module")
def example(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    target = server.database()
    with opened(tmp_path_factory.mktemp("example")) as site:
        yield Filled(site, target)
        site._daemons[-1].stop()


@pytest.fixture
def filled(example: Filled) -> Iterator[Database]:
    """Give the target; after the test, its sign of life is current again."""
    yield example.target
    example.target.execute("UPDATE {at}sources SET daemon_seen_at = {past}")


def expected(target: Database) -> tuple[set[int], list[int]]:
    rows = target_view(target, "availability")
    return {row["variant_id"] for row in rows if row["sellable"]}, [
        row["variant_id"] for row in rows
    ]


def test_the_documented_statement_sells_and_fails_safe(filled: Database) -> None:
    """By the clock of the database: nothing, once the sign of life is five minutes old."""
    sellable, everything = expected(filled)
    kind = "syncd." if filled.server.kind == "postgresql" else "syncd_"
    (statement,) = (
        sql for sql in code_of(PUBLISH, "sql") if "daemon_seen_at" in sql and kind in sql
    )
    ids = ", ".join(map(str, everything))
    array = f"ARRAY[{ids}]" if kind == "syncd." else ids
    statement = statement.replace(":variant_ids", array)
    assert {row["variant_id"] for row in filled.query(statement)} == sellable
    for past in (6 * 60, -120):
        filled.execute("UPDATE {at}sources SET daemon_seen_at = {past}", past=past)
        assert filled.query(statement) == []
    filled.execute("UPDATE {at}sources SET daemon_seen_at = NULL")
    assert filled.query(statement) == []


def test_the_example_in_python(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after its connection was cut."""
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("target")
    is_mysql = filled.server.kind == "mysql"

    def connect() -> Any:
        if not is_mysql:
            return psycopg.connect(filled.url())
        return pymysql.connect(
            host="127.0.0.1",
            port=filled.server.port,
            user=filled.name,
            password=filled.password,
            database=filled.name,
        )

    one = example.Target(connect, is_mysql=is_mysql)
    sellable, everything = expected(filled)
    assert one.may_sell(*everything) == sellable
    one._db.close()
    assert one.may_sell(*everything) == sellable
    assert one.may_sell_skus("ONE", "TWO", "THREE") == {"ONE"}
    filled.execute("UPDATE {at}sources SET daemon_seen_at = NULL")
    assert one.may_sell(*everything) == set()
    one.close()
    assert example.Target(lambda: 1 / 0).may_sell(1) == set()


def run(*command: object, **environ: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"} | environ,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_the_example_in_php(filled: Database) -> None:
    """With PDO."""
    kind = "pgsql" if filled.server.kind == "postgresql" else "mysql"
    if shutil.which("php") is None or f"pdo_{kind}" not in run("php", "-m"):
        pytest.skip(f"php or its pdo_{kind} is not installed (php-{kind})")
    sellable, everything = expected(filled)
    dsn = f"{kind}:host=127.0.0.1;port={filled.server.port};dbname={filled.name}"
    code = f"""require '{EXAMPLES}/target.php';
        $target = new Target('{dsn}', '{filled.name}', '{filled.password}');
        echo json_encode([$target->maySell({", ".join(map(str, everything))}),
            $target->maySellSkus('ONE', 'TWO')]);"""
    variants, skus = json.loads(run("php", "-r", code))
    assert (set(map(int, variants)), skus) == (sellable, ["ONE"])


def test_the_example_in_ruby(filled: Database) -> None:
    """With the gems pg and mysql2."""
    gem = "pg" if filled.server.kind == "postgresql" else "mysql2"
    if (
        shutil.which("ruby") is None
        or subprocess.run(
            ["ruby", "-e", f"require '{gem}'"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip(f"ruby or its {gem} is not installed (ruby-{gem})")
    sellable, everything = expected(filled)
    connect = (
        f"PG.connect('{filled.url()}')"
        if gem == "pg"
        else f"Mysql2::Client.new(host: '127.0.0.1', port: {filled.server.port}, "
        f"username: '{filled.name}', password: '{filled.password}', database: '{filled.name}')"
    )
    code = f"""require 'json'; require '{gem}'; require '{EXAMPLES}/target.rb'
        target = Target.new {{ {connect} }}
        puts JSON.generate([target.may_sell({", ".join(map(str, everything))}),
            target.may_sell_skus('ONE', 'TWO')])"""
    variants, skus = json.loads(run("ruby", "-w", "-e", code))
    assert (set(variants), skus) == (sellable, ["ONE"])


def test_the_example_in_node(filled: Database) -> None:
    """With the packages pg and mysql2."""
    package = "pg" if filled.server.kind == "postgresql" else "mysql2"
    modules = ROOT / ".ci" / "node_modules"
    if shutil.which("node") is None or not (modules / package).exists():
        pytest.skip(f"node or its package {package} is not installed (.ci/packages)")
    sellable, everything = expected(filled)
    is_mysql, ids = str(package == "mysql2").lower(), ", ".join(map(str, everything))
    if package == "pg":
        head = "const pool = new (require('pg').Pool)({ connectionString: process.env.URL })"
        query = "(await pool.query(sql, values)).rows"
    else:
        head = "const pool = require('mysql2/promise').createPool(process.env.URL)"
        query = "(await pool.query(sql, values))[0]"
    code = f"""{head}
        import('{EXAMPLES}/target.mjs').then(async ({{ Target }}) => {{
            const target = new Target(async (sql, values) => {query},
                {{ isMysql: {is_mysql} }})
            console.log(JSON.stringify([[...await target.maySell({ids})],
                [...await target.maySellSkus('ONE', 'TWO')]]))
            await pool.end()
        }})"""
    output = run("node", "-e", code, URL=filled.url(), NODE_PATH=str(modules))
    variants, skus = json.loads(output)
    assert (set(variants), skus) == (sellable, ["ONE"])


def test_the_follower_listens_and_connects_again(example: Filled, filled: Database) -> None:
    """Each change arrives at once, also after its connection was cut."""
    if filled.server.kind != "postgresql":
        return
    site, daemon = example.site, example.daemon
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "follow_target.py", filled.url()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as follower:
        try:
            assert follower.stdout is not None
            assert follower.stdout.readline() == "20 variants\n"
            filled_seq = daemon.status()["publish"]["seq"]
            change(site, daemon, 1)
            assert (
                json.loads(follower.stdout.readline().removeprefix("change "))["seq"]
                == filled_seq + 1
            )
            filled.execute(
                f"""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = '{filled.name}' AND application_name <> 'syncd'
                        AND pid <> pg_backend_pid()"""  # noqa: S608 - names of this test
            )
            assert "the target cannot be read" in follower.stdout.readline()
            change(site, daemon, 2)
            lines = iter(follower.stdout.readline, "")
            found = (line for line in lines if line.startswith("change "))
            assert [json.loads(next(found)[7:])["seq"] for _ in range(2)] == [
                filled_seq + 2,
                filled_seq + 3,
            ]
        finally:
            follower.kill()
