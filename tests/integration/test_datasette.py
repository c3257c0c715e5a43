"""The Datasette metadata fits the mirror, and sqlite-utils reads it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from documents import section
from msgspec import json

import syncd

if TYPE_CHECKING:
    from conftest import Daemon

METADATA = Path(syncd.__file__).with_name("datasette.json")
DATABASE: dict[str, Any] = json.decode(METADATA.read_bytes())["databases"]["availability"]


@pytest.mark.parametrize("view", ["availability", "listings", "changes", "freshness"])
def test_every_column_is_described(shared: Daemon, view: str) -> None:
    """With the words of the reference; each view is described too."""
    columns = DATABASE["tables"][view]["columns"]
    found = shared.site.rows("SELECT name FROM pragma_table_info(?)", view)
    assert [*columns] == [row["name"] for row in found]
    documented = section("The views").replace("`", "")
    assert [name for name in columns if f"| {name} | {columns[name]} |" not in documented] == []
    (row,) = shared.site.rows("SELECT sql FROM sqlite_master WHERE name = ?", view)
    assert re.match(rf"CREATE VIEW {view} AS\n-- .*\n", row["sql"])


def test_every_query_returns_rows(shared: Daemon) -> None:
    """After a change and a missed delivery."""
    site, (one, other) = shared.site, sorted(shared.site.catalogue.variants)[:2]
    for value in ("out_of_stock", "in_stock", "out_of_stock"):
        shared.deliver(site.change(one, value))
    site.catalogue.set_availability(other, "out_of_stock")
    assert site.syncd("reconcile-now").returncode == 0
    answers = {name: site.rows(query["sql"]) for name, query in DATABASE["queries"].items()}
    changed = answers["changed_today"]
    assert {change["variant_id"] for change in changed[:4]} == {one, other}
    assert {row["variant_id"] for row in answers["flaps_most"]} == {one, other}
    assert answers["flaps_most"][0]["variant_id"] == one
    assert answers["flaps_most"][0]["flips"] >= 2
    assert sum(day["missed"] for day in answers["missed_by_day"]) == 1
    assert sum(day["changes"] for day in answers["missed_by_day"]) >= len(changed)
    assert {one, other} <= {row["variant_id"] for row in answers["off_sale"]}


def test_every_query_is_documented() -> None:
    """By name."""
    assert all(f"`{name}`" in section("Looking around") for name in DATABASE["queries"])


def test_sqlite_utils_reads_the_mirror(shared: Daemon) -> None:
    """It is installed with syncd, and lists the views as views."""
    done = subprocess.run(
        [sys.executable, "-m", "sqlite_utils", "views", str(shared.site.mirror), "--csv"],
        capture_output=True,
        text=True,
        check=True,
    )
    head, *views = done.stdout.split()
    assert (head, sorted(views)) == ("view", ["availability", "changes", "freshness", "listings"])
