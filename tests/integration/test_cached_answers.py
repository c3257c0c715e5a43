"""Answers from a cache, and answers with a wrong `Date`: which values change the mirror."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import pytest
from msgspec import json

from syncd.demo.fake_dreamship import Cache
from syncd.demo.fake_dreamship.faults import CacheTrace

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from conftest import Site

TEN_YEARS_S = 3650 * 86_400.0
OLD_S = 240.0


@pytest.fixture
def small(tmp_path: Path, open_site: Callable[..., AbstractContextManager[Site]]) -> Iterator[Site]:
    """Give a site with a catalogue of two items."""
    with open_site(tmp_path, items=2, variants_per_item=3) as site:
        yield site


def prime(site: Site, *paths: str) -> None:
    """Have the cache keep what Dreamship answers now."""
    for path in paths:
        url = f"{site.settings['dreamship']['base_url']}/{path}"
        httpx.get(url, headers={"Authorization": f"Bearer {site.key}"}, trust_env=False)


def cached_items(site: Site, lifetime_s: float, trace: CacheTrace = "age") -> Cache:
    """Put a cache in front of the API that has an old copy of every item."""
    cache = site.api.faults.cache = Cache(lifetime_s, trace, older_s=OLD_S)
    prime(site, *(f"items/{item_id}/" for item_id in site.catalogue.names))
    return cache


def in_stock(site: Site) -> int:
    """Return a variant that is on sale."""
    row = site.rows("SELECT variant_id FROM availability WHERE sellable ORDER BY 1 LIMIT 1")[0]
    return int(row["variant_id"])


@pytest.mark.parametrize("trace", ["age", "date", "expires", "mark"])
def test_a_cached_answer_does_not_overrule_a_delivery(small: Site, trace: CacheTrace) -> None:
    """Not for the variant, not for the webhook state, and not for the next delivery."""
    daemon = small.serve()
    variant_id = in_stock(small)
    cache = cached_items(small, 600, trace)
    assert daemon.deliver(small.change(variant_id, "out_of_stock")) == "applied"
    small.until(lambda: cache.copies)
    small.until(lambda: small.rows("SELECT 1 FROM items WHERE not_before IS NOT NULL"))
    row = small.variant(variant_id)
    assert (row["availability"], row["sellable"]) == ("out_of_stock", 0)
    assert small.rows("SELECT 1 FROM refresh_queue")
    assert not small.rows("SELECT 1 FROM changes WHERE missed")
    assert daemon.deliver(small.change(variant_id, "discontinued")) in {"applied", "verifying"}
    other = next(v for v in small.catalogue.variants if v != variant_id)
    assert daemon.deliver(small.change(other, "a new value")) == "applied"
    assert cache.copies <= 3
    daemon.stop()


@pytest.mark.parametrize("trace", ["age", "expires"])
def test_a_copy_is_read_again_after_its_lifetime(small: Site, trace: CacheTrace) -> None:
    """If the cache keeps it longer, the waits grow."""
    daemon = small.serve()
    variant_id = in_stock(small)
    cache = cached_items(small, 6000, trace)
    cache.left_s = 3
    daemon.deliver(small.change(variant_id, "out_of_stock"))
    small.until(lambda: cache.copies)
    small.api.faults.cache = None
    small.until(lambda: not small.rows("SELECT 1 FROM refresh_queue"))
    assert cache.copies == 1
    assert small.variant(variant_id)["verifying"] == 0
    assert small.differences == 0
    assert daemon.status()["webhooks"]["missed_24h"] == 0
    daemon.stop()


def test_a_cached_404_and_a_copy_without_a_variant_remove_nothing(small: Site) -> None:
    """An absence counts only in an answer of Dreamship itself."""
    daemon = small.serve()
    gone, short = sorted(small.catalogue.names)
    lost = small.catalogue.of_item(short)[0]
    small.api.faults.always[gone] = "404"
    del small.catalogue.variants[lost.variant_id]
    cache = cached_items(small, 600)
    small.api.faults.always.clear()
    small.catalogue.variants[lost.variant_id] = lost
    for item_id in (gone, short):
        daemon.deliver(small.change(small.catalogue.of_item(item_id)[1].variant_id, "few left"))
    small.until(lambda: cache.copies >= 2)
    small.until(lambda: len(small.rows("SELECT 1 FROM items WHERE not_before IS NOT NULL")) == 2)
    assert not small.rows("SELECT 1 FROM availability WHERE removed")
    assert not small.rows("SELECT 1 FROM items WHERE is_gone")
    daemon.stop()


def test_a_sweep_with_a_cached_list_is_partial(small: Site) -> None:
    """A new item may be missing, so the list is read three times, and then reported."""
    daemon = small.serve()
    small.api.faults.cache = cache = Cache(600, older_s=OLD_S)
    prime(small, "items/?page=1&limit=100")
    new = small.catalogue.add_item()
    done = small.syncd("reconcile-now", "--json")
    assert (done.returncode, json.decode(done.stdout)["result"]) == (1, "partial")
    assert cache.copies == 3
    assert any("or came from a cache" in reason for reason in daemon.status()["reasons"])
    small.api.faults.cache = None
    assert small.syncd("reconcile-now").returncode == 0
    assert small.rows("SELECT 1 FROM availability WHERE item_id = ?", new)
    daemon.stop()


def test_a_first_fill_from_a_cache_has_the_age_of_the_copies(small: Site) -> None:
    """`confirmed_at` shows the shop when the values were true."""
    cached_items(small, 600)
    before = time.time()
    daemon = small.serve(filled=False)
    small.until(lambda: small.rows("SELECT 1 FROM availability"))
    (row,) = small.rows(
        "SELECT CAST(strftime('%s', min(confirmed_at)) AS INTEGER) AS at FROM availability"
    )
    assert before - OLD_S - 5 <= row["at"] <= time.time() - OLD_S
    assert daemon.status()["sweep"]["last_result"] is None
    daemon.stop()


def test_a_cached_answer_of_unknown_age_is_not_mirrored(small: Site) -> None:
    """A new mirror with such answers only stays empty, and the status says why."""
    cached_items(small, 600, "mark")
    small.api.faults.cache.copies = 0  # type: ignore[union-attr]
    daemon = small.serve(filled=False)
    small.until(lambda: small.api.faults.cache.copies >= 2)  # type: ignore[union-attr]
    small.until(lambda: len(small.rows("SELECT 1 FROM items WHERE not_before IS NOT NULL")) == 2)
    assert not small.rows("SELECT 1 FROM availability")
    daemon.stop()


@pytest.mark.parametrize("skew_s", [TEN_YEARS_S, -TEN_YEARS_S])
def test_one_wrong_date_does_not_affect_later_deliveries(small: Site, skew_s: float) -> None:
    """Not of that item, not of another, not after a restart."""
    daemon = small.serve()
    variant_id = in_stock(small)
    item_id = small.catalogue.variants[variant_id].item_id
    small.api.faults.date_skews_s = [skew_s]
    assert small.syncd("reconcile-now", "--item", str(item_id)).returncode == 0
    assert small.api.faults.date_skews_s == []
    for value in ("out_of_stock", "in_stock"):
        assert daemon.deliver(small.change(variant_id, value)) == "applied"
        time.sleep(1.4)
    daemon.stop()
    daemon = small.serve(filled=False)
    assert daemon.deliver(small.change(variant_id, "out_of_stock")) == "applied"
    daemon.stop()


def test_a_wrong_clock_stored_by_an_earlier_version_is_corrected(small: Site) -> None:
    """Rows and clock ten years ahead: honest deliveries are applied again."""
    daemon = small.serve()
    variant_id = in_stock(small)
    daemon.stop()
    with closing(sqlite3.connect(small.mirror, isolation_level=None)) as mirror:
        mirror.execute("UPDATE items SET read_at = '2046-01-01T00:00:00.000000Z'")
        mirror.execute("UPDATE variants SET event_at = '2046-01-01T00:00:00.000000Z'")
        mirror.execute("UPDATE state SET value = '315360000.0' WHERE key = 'clock_offset_s'")
        mirror.execute("DELETE FROM state WHERE key = 'clock_mark'")
    daemon = small.serve(filled=False)
    assert daemon.deliver(small.change(variant_id, "out_of_stock")) == "applied"
    small.until(lambda: not small.rows("SELECT 1 FROM refresh_queue"))
    assert not small.rows(
        "SELECT 1 FROM items i JOIN variants v USING (item_id) WHERE v.variant_id = ? AND "
        "(i.read_at > '2046' OR v.event_at > '2046')",
        variant_id,
    )
    daemon.stop()


def test_a_dry_run_ignores_differences_of_cached_answers(small: Site) -> None:
    """It names the items that a cache answered for."""
    small.serve().stop()
    with_copies = sorted(small.catalogue.names)
    cached_items(small, 600)
    done = small.syncd("reconcile-now", "--dry-run", "--json")
    output = json.decode(done.stdout)
    assert (output["result"], output["failed_items"], output["differences"]) == (
        "failed",  # not one of them was read
        with_copies,
        [],
    )


def test_doctor_reports_a_cache(small: Site) -> None:
    """And does not compare the clock with the Date of a copy."""
    small.api.faults.cache = Cache(600, older_s=OLD_S)
    prime(small, "items/?page=1&limit=100")
    checks = json.decode(small.syncd("doctor", "--json").stdout)["checks"]
    (found,) = (check for check in checks if check["check"] == "Dreamship itself answers")
    assert found["verdict"] == "warn"
    assert "24" in found["told"]
    assert not any("clock" in check["check"] for check in checks)
