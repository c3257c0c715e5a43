"""Output has bounds, however many or long the values and names of the source are."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from msgspec import json

from syncd.core.health import MAX_VALUE_CHARS, MAX_VALUES, unknown_values
from syncd.core.plain_text import MAX_CHARS, shortened
from syncd.core.policy import Policy
from syncd.store import Queries

if TYPE_CHECKING:
    from conftest import Daemon, Site

KB = 1024
LONG = "\N{SKULL}" * 300_000
POLICY = Policy(frozenset({"in_stock"}), settle=timedelta(0))


def get(daemon: Daemon, path: str) -> httpx.Response:
    answer = httpx.get(daemon.admin_url + path, trust_env=False)
    assert answer.status_code == 200
    return answer


def change(site: Site, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(site.mirror, timeout=5)) as connection, connection:
        connection.execute(sql, values)


@pytest.fixture(scope="module")
def flooded(
    tmp_path_factory: pytest.TempPathFactory,
    open_site: Callable[..., AbstractContextManager[Site]],
) -> Iterator[Daemon]:
    """Give a daemon whose variants have 20,000 values, and some values and names of 1.2 MB."""
    with open_site(tmp_path_factory.mktemp("flooded"), items=2) as site:
        daemon = site.serve()
        stored = [
            row["name"] for row in site.rows("SELECT name FROM pragma_table_info('variants')")
        ]
        output = {"variant_id": "1000000 + n", "value": "'value ' || n || :tail", "item_id": "99"}
        change(
            site,
            f"""WITH RECURSIVE numbers(n) AS
                    (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
                INSERT INTO variants ({", ".join(stored)})
                SELECT {", ".join(output.get(name, name) for name in stored)} FROM numbers, variants
                WHERE variant_id = (SELECT min(variant_id) FROM variants)""".replace(  # noqa: S608
                ":tail", "?"
            ),
            "x" * 190,
        )
        change(
            site, "UPDATE variants SET value = ?, name = ? WHERE variant_id < 1000000", LONG, LONG
        )
        change(site, "UPDATE change_log SET availability = ?, old_availability = ?", LONG, LONG)
        change(site, "UPDATE items SET name = ?", LONG)
        change(site, "UPDATE sweeps SET result = 'partial', error = ?", LONG)
        yield daemon


def test_the_most_frequent_values_are_named_and_the_others_counted() -> None:
    """Each is cut to a bound; two that look the same then share a name."""
    counted = [("in_stock", 9), ("a", 5), ("x" * 300, 4), ("x" * 299 + "y", 3), ("b", 2), ("c", 1)]
    found = unknown_values(counted, POLICY, 3)
    assert found.named == {"a": 5, shortened("x" * 300, MAX_VALUE_CHARS): 4, "b": 2}
    assert found.more == 2
    assert unknown_values([], POLICY).more == 0


def test_the_status_has_bounds(flooded: Daemon) -> None:
    """As JSON, text and metrics: 20,000 values once made it 4.4 MB."""
    site = flooded.site
    text = get(flooded, "/status.json").text
    assert len(text.encode()) < 32 * KB
    mirror = json.decode(text)["mirror"]
    assert len(mirror["unknown_values"]) == MAX_VALUES
    assert mirror["more_unknown_values"] == 20_001 - MAX_VALUES
    assert mirror["variants"] >= 20_000
    assert max(map(len, mirror["unknown_values"])) < MAX_VALUE_CHARS + 50
    assert mirror["unknown_values"][shortened(LONG, MAX_VALUE_CHARS)] >= 4
    assert len(get(flooded, "/metrics").content) < 32 * KB
    done = site.syncd("status")
    assert len(done.stdout) < 8 * KB
    assert "more values" in done.stdout
    assert "tries again now" in done.stdout


@pytest.mark.parametrize("query", ["", "?q=1000001", "?q=\N{SKULL}"])
def test_the_page_has_bounds(flooded: Daemon, query: str) -> None:
    """With each list: the newest changes and values, or search results and a history."""
    text = get(flooded, f"/{query}").text
    assert len(text) < 256 * KB
    assert ("and 19951 more values" in text) == (not query)
    assert "(300000 characters)" in text


@pytest.mark.parametrize("command", ["availability", "explain", "changes", "deliveries"])
def test_command_output_for_people_has_bounds(flooded: Daemon, command: str) -> None:
    """A cut value says so; with --json it is complete."""
    site = flooded.site
    requested = (
        [str(min(site.catalogue.variants))] if command in {"availability", "explain"} else []
    )
    assert len(site.syncd(command, *requested).stdout) < 100 * KB
    if command == "availability":
        shown = json.decode(site.syncd(command, *requested, "--json").stdout)
        assert shown["variants"][0]["availability"] == LONG


def test_the_log_names_some_new_values(flooded: Daemon) -> None:
    """In one bounded line; the mirror stores a cut form of each."""
    site = flooded.site
    flooded.process.send_signal(signal.SIGHUP)
    site.until(lambda: any(line.get("less_frequent") for line in flooded.lines()))
    assert max(map(len, flooded.log.read_bytes().split(b"\n"))) < 16 * KB
    (row,) = site.rows("SELECT length(value) AS n FROM state WHERE key = 'reported_values'")
    assert row["n"] < 1000 * (MAX_VALUE_CHARS + 50)


def test_counting_values_takes_bounded_memory(flooded: Daemon) -> None:
    """However many rows it reads."""
    with closing(Queries(flooded.site.mirror)) as reports:
        counts: Any = reports.counts(POLICY)
    assert len(json.encode(counts)) < 32 * KB
    assert MAX_CHARS > MAX_VALUE_CHARS


def test_a_dry_run_names_some_failed_items(
    tmp_path: Path, open_site: Callable[..., AbstractContextManager[Site]]
) -> None:
    """And the number of the others; JSON has every id."""
    with open_site(tmp_path, items=60, variants_per_item=1) as site:
        assert site.syncd("reconcile-now").returncode == 0
        broken = sorted(site.catalogue.names)[:50]
        site.api.faults.always = dict.fromkeys(broken, "403")
        done = site.syncd("reconcile-now", "--dry-run", "--json")
        assert done.returncode == 1
        assert sorted(json.decode(done.stdout)["failed_items"]) == broken
        (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert error.count("; item ") == 4
        assert error.endswith("; and 45 more")
