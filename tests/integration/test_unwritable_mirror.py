"""A daemon whose mirror is damaged, locked or missing: no useless call, and a full recovery."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest
from damaged import damage
from msgspec import json

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Site
IN_FLIGHT = 4


def test_a_daemon_reads_the_items_of_a_damaged_page_once(site: Site) -> None:
    """It reports the damage once, in log and status, and continues after the repair."""
    for _ in range(35):
        site.catalogue.add_item()
    daemon = site.serve()
    daemon.deliver_first()
    daemon.stop()
    with contextlib.closing(sqlite3.connect(site.mirror)) as mirror:
        mirror.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found = mirror.execute(
            "SELECT pageno FROM dbstat WHERE name = 'refresh_queue' AND pagetype = 'leaf'"
        )
        ((page,),) = found.fetchall()
    before = damage(site.mirror, page)
    daemon = site.serve(filled=False)
    site.api.calls.clear()
    requesting = reconciling(site)
    site.until(lambda: daemon.logged("an answer cannot be written"))
    site.until(lambda: len(item_calls(site)) >= 3)
    counts = item_calls(site)
    site.until(lambda: "cannot store the answer" in str(daemon.status()["reasons"]))
    assert daemon.status()["health"] == "degraded"
    with site.mirror.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(before)
    site.until(lambda: daemon.logged("answers can be written again"), 60)
    out, _ = requesting.communicate(timeout=60)
    assert json.decode(out)["items"] + len(json.decode(out)["failed_items"]) == 40
    assert max(counts.values()) == 1, counts
    assert len(daemon.logged("an answer cannot be written")) == 1
    site.until(lambda: "cannot store the answer" not in str(daemon.status()["reasons"]))
    assert site.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    daemon.stop()


@pytest.mark.parametrize("what", ["locked", "removed"])
def test_a_daemon_makes_no_call_while_its_mirror_is_unwritable(site: Site, what: str) -> None:
    """Another process holds the lock, or the files are missing; then it reads everything."""
    for _ in range(25):
        site.catalogue.add_item()
    site.configure(dreamship={"calls_per_minute": 240})
    daemon = site.serve(filled=False)
    site.until(lambda: len(item_calls(site)) >= 5)
    with away(site, what):
        # Calls in flight may still arrive, and be logged; no other call follows.
        site.until(lambda: daemon.logged("the mirror cannot be used"))
        before = len(site.api.calls)
        with httpx.Client(trust_env=False, timeout=60) as client:
            assert daemon.post(b"{}", client=client).status_code == 503
        assert len(site.api.calls) <= before + IN_FLIGHT
    site.until(lambda: len(item_calls(site)) == 30, 60)
    site.until(lambda: site.differences == 0, 60)
    assert max(item_calls(site).values()) <= 2
    daemon.stop()


@contextlib.contextmanager
def away(site: Site, what: str) -> Iterator[None]:
    """Block all writes to the mirror meanwhile."""
    if what == "removed":
        elsewhere = site.mirror.parent.with_name("elsewhere")
        site.mirror.parent.rename(elsewhere)
        yield
        elsewhere.rename(site.mirror.parent)
        return
    with contextlib.closing(sqlite3.connect(site.mirror, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def reconciling(site: Site) -> subprocess.Popen[str]:
    return subprocess.Popen(
        site.command("reconcile-now", "--json"),
        env=site.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def item_calls(site: Site) -> Counter[str]:
    """Count the calls for single items, by path."""
    return Counter(call.path for call in site.api.calls if call.path != "/v1/items/")
