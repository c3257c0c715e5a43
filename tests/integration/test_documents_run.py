"""The documented queries and commands run, on a real mirror."""

from __future__ import annotations

import sqlite3
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from documents import (
    README,
    ROOT,
    SHOPS,
    blocks,
    code_of,
    rows,
    section,
    spelled,
    text,
)

from syncd.config import load
from syncd.core.listings import Listing, parse
from syncd.core.model import ItemDetails, ItemRead, SourceVariant, VariantDetails
from syncd.core.policy import Policy
from syncd.core.timestamps import to_text
from syncd.store import listings, reads
from syncd.store.connection import open_for_writing


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Make a real mirror of one item with two variants and four SKUs; give it to a reader."""
    path = tmp_path / "availability.db"
    writer = open_for_writing(path)
    now = datetime.now(UTC)
    output = (
        SourceVariant(1, "in_stock", VariantDetails()),
        SourceVariant(2, "out_of_stock", VariantDetails()),
    )
    details = ItemDetails(countries=("DE", "US"))
    found = ItemRead(77, "Mug", output, now, now, details=details)
    policy = Policy(sellable=frozenset({"in_stock"}), settle=timedelta(seconds=60))
    reads.apply(writer, found, policy, now=now)
    listed = [Listing("MUG-1", 1, "A mug"), Listing("MUG-2", 2), Listing("MUG-3", 3)]
    listings.save(writer, [*listed, Listing("MUG-4", 1)], now)
    writer.execute("INSERT INTO state VALUES ('daemon_seen_at', ?)", (to_text(now),))
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)
    yield reader
    reader.close()
    writer.close()


@pytest.mark.parametrize("view", ["availability", "listings", "changes", "freshness"])
def test_the_views_have_the_documented_columns(mirror: sqlite3.Connection, view: str) -> None:
    """Names and order, in a mirror of this version."""
    _, _, columns = section("The views").partition(f"\n`{view}`, one row")
    output = [spelled(row[0]) for row in rows(columns, "column")]
    assert output == [column[0] for column in mirror.execute(f"SELECT * FROM {view}").description]  # noqa: S608


ASKED = {
    "variant_id": 1,
    "variant_ids": "[2, 1, 3]",
    "skus": '["MUG-1", "MUG-2", "MUG-3", "MUG-5"]',
    "country": "US",
    "seq": 1,
}
LISTED = [
    ("MUG-1", "A mug", 1, "in_stock", 1, None, "a moment"),
    ("MUG-2", None, 2, "out_of_stock", 0, "value", "a moment"),
    ("MUG-3", None, 3, None, 0, "unknown", None),
]
NIGHTLY = [("MUG-3", "unknown"), ("MUG-4", "not in the shop"), ("MUG-5", "not in the file")]
FEED = [(1, "a moment", 1, "in_stock", 1), (2, "a moment", 2, "out_of_stock", 0)]
ANSWERS = [
    *([(1,)], [(1,)], [(1, 1), (2, 0)], [(1,)]),
    *([("MUG-1",)], LISTED, NIGHTLY),
    *([(1,), (2,)], FEED, [(2, "a moment")]),
]


def test_the_documented_sql_runs(mirror: sqlite3.Connection) -> None:
    """Each statement, in order, on a real mirror."""
    statements = code_of(SHOPS, "sql")
    answers = [sorted(mirror.execute(statement, ASKED)) for statement in statements]
    (now,) = mirror.execute("SELECT max(recorded_at) FROM changes").fetchone()
    assert [
        [tuple("a moment" if value == now else value for value in row) for row in answer]
        for answer in answers
    ] == ANSWERS


def test_looking_up_a_variant_needs_no_scan(mirror: sqlite3.Connection) -> None:
    """The shop asks at each sale: by primary key, however large the mirror is."""
    for statement in code_of(SHOPS, "sql")[:3]:
        plan = [row[3] for row in mirror.execute(f"EXPLAIN QUERY PLAN {statement}", ASKED)]
        assert any(step.startswith("SEARCH v USING INTEGER PRIMARY KEY") for step in plan), plan


def test_looking_up_a_sku_needs_no_scan(mirror: sqlite3.Connection) -> None:
    """By the index of the SKUs, then by the primary key of the variants."""
    statements = [sql for sql in code_of(SHOPS, "sql") if "WHERE sku IN (SELECT" in sql]
    assert len(statements) == 2
    for statement in statements:
        plan = [row[3] for row in mirror.execute(f"EXPLAIN QUERY PLAN {statement}", ASKED)]
        assert any(step.startswith("SEARCH s USING INDEX") for step in plan), plan
        assert any(step.startswith("SEARCH v USING INTEGER PRIMARY KEY") for step in plan), plan


def test_every_reason_is_explained() -> None:
    """In the order in which the views look for one."""
    explained = [spelled(row[0]) for row in rows(section("Why not?"), "reason")]
    assert explained == list(listings.REASONS)


def test_the_documented_listings_are_valid(tmp_path: Path) -> None:
    """The file has the SKUs of the recipes, and the key names it."""
    (csv,) = blocks("The file with your SKUs", "csv")
    assert [(one.sku, one.variant_id) for one in parse(csv.encode())] == [
        ("TEE-M", 48211),
        ("TEE-L", 48212),
    ]
    (toml,) = blocks("The file with your SKUs", "toml")
    path = tmp_path / "config.toml"
    path.write_text(toml)
    assert str(load(path, {}).catalog.listings) == tomllib.loads(toml)["catalog"]["listings"]


@pytest.mark.parametrize("is_exported", [True, False])
def test_the_documented_export_replaces_the_file_only_as_a_whole(
    tmp_path: Path, *, is_exported: bool
) -> None:
    """A failed export leaves the old file in place."""
    (script,) = blocks("The file with your SKUs")
    (tmp_path / "listings.csv").write_text("old")
    export = tmp_path / "export-skus"
    export.write_text(f"#!/bin/sh\nprintf new\nexit {0 if is_exported else 1}\n")
    export.chmod(0o755)
    script = script.replace("/srv/shop", str(tmp_path))
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, check=False)
    assert (done.returncode == 0) == is_exported
    assert (tmp_path / "listings.csv").read_text() == ("new" if is_exported else "old")


def test_a_mirror_without_a_live_daemon_is_not_fresh(tmp_path: Path) -> None:
    """No heartbeat, or an old one, means that nothing is sellable."""
    query = next(sql for sql in code_of(SHOPS, "sql") if "AS is_fresh" in sql)
    writer = open_for_writing(tmp_path / "availability.db")
    try:
        assert writer.execute(query).fetchall() == [(0,)]
        writer.execute("INSERT INTO state VALUES ('daemon_seen_at', '2024-01-01T00:00:00.000000Z')")
        assert writer.execute(query).fetchall() == [(0,)]
    finally:
        writer.close()


def test_the_documented_python_opens_a_mirror(tmp_path: Path) -> None:
    """Read only, with only the path replaced."""
    writer = open_for_writing(tmp_path / "availability.db")
    snippet = code_of(SHOPS, "python")[0]
    names: dict[str, Any] = {}
    exec(snippet.replace("/var/lib/syncd", str(tmp_path)), names)  # noqa: S102 - ours
    opened: sqlite3.Connection = names["mirror"]
    try:
        assert opened.execute("SELECT count(*) FROM availability").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            opened.execute("DELETE FROM variants")
    finally:
        opened.close()
        writer.close()


def extracted() -> str:
    """Return the test command as `.ci/suite` reads it from the README."""
    line = next(
        line for line in (ROOT / ".ci" / "suite").read_text().splitlines() if "README.md" in line
    )
    script = f'{line}\nprintf "%s" "$command"'
    return subprocess.run(
        ["sh", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_ci_runs_the_test_command() -> None:
    """Exactly one command line, taken from the README."""
    command = extracted()
    assert len(command.splitlines()) == 1
    assert command.startswith("python3 -m venv .venv && ")
    assert command.endswith("pytest")
    assert f"<!-- test command -->\n```sh\n{command}\n```\n" in text(README)
