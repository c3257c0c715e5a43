"""A broken part of the source affects only itself; only Dreamship itself can remove an item.

With real sockets, the real client and the real mirror, and a Dreamship whose parts break.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import json

from syncd.config import load
from syncd.core.jobs import SweepSummary
from syncd.core.model import SweepResult
from syncd.daemon.services import Services
from syncd.demo.fake_dreamship.faults import Fault

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Site


def reconcile(
    site: Site, *items: int, accept_removals: bool = False
) -> tuple[SweepResult, SweepSummary]:
    """Sweep as `reconcile-now` does without a daemon, but wait for no back-off."""

    async def run() -> SweepSummary:
        services = await Services.open(load(site.config, {}))
        services.fetcher.failures.chance = lambda: 0.0
        try:
            sweep_id, _ = await services.sweep_manager.request(
                "operator", items=items or None, accept_removals=accept_removals
            )
            services.start_reading()
            return await services.sweep_manager.wait(sweep_id)
        finally:
            await services.close()

    summary = asyncio.run(asyncio.wait_for(run(), 50))
    return summary.result, summary


def command(site: Site, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Return exit code, document and standard error of the command itself."""
    done = site.syncd("reconcile-now", "--json", *arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, json.decode(done.stdout), done.stderr


def counted(site: Site, where: str) -> int:
    """Count the variants of the mirror of which something is true."""
    (row,) = site.rows(f"SELECT count(*) AS n FROM availability WHERE {where}")  # noqa: S608
    return int(row["n"])


# --- one item ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        "403",
        "401",
        "gateway-403",
        "html-403",
        "gateway-404",
        "500",
        "garbage",
        "429",
        "retry-403",
        "bomb",
        "flood",
    ],
)
def test_a_broken_item_does_not_stop_the_first_fill(site: Site, failure: Fault) -> None:
    """The other items are mirrored, and the broken one is named."""
    broken = min(site.catalogue.names)
    site.api.faults.always = {broken: failure}
    result, summary = reconcile(site)
    assert (result, summary.failed_items, summary.items) == ("partial", [broken], 4)
    assert f"item {broken}: " in summary.error
    assert "refused:" not in summary.error
    assert counted(site, "sellable IN (0, 1)") == 16


def test_later_sweeps_read_a_broken_item_last(site: Site) -> None:
    """And read it as soon as it is readable."""
    broken = min(site.catalogue.names)
    site.api.faults.always = {broken: "403"}
    reconcile(site)
    site.api.calls.clear()
    assert reconcile(site)[0] == "partial"
    requested = [call.path for call in site.api.calls if call.path != "/v1/items/"]
    assert f"/v1/items/{broken}/" not in requested[:4]
    site.api.faults.always = {}
    assert reconcile(site)[0] == "complete"
    assert site.differences == 0


def test_an_operator_does_not_wait_for_an_items_back_off(site: Site) -> None:
    """An item that failed for a while is read at once on request."""
    reconcile(site)
    with closing(sqlite3.connect(site.mirror)) as mirror, mirror:
        mirror.execute("UPDATE items SET attempts = 9, not_before = '2999-01-01T00:00:00.000000Z'")
    result, summary = reconcile(site)
    assert (result, summary.items) == ("complete", 5)


def test_a_401_for_one_item_does_not_mean_a_refused_key(site: Site) -> None:
    """The status names the item, and never says that the key is refused."""
    broken = min(site.catalogue.names)
    site.api.faults.always = {broken: "403"}
    code, summary, err = command(site)
    assert (code, summary["result"], summary["failed_items"]) == (1, "partial", [broken])
    assert f"item {broken}: " in err
    reasons = site.serve().status()["reasons"]
    assert any(f"item {broken}: " in reason for reason in reasons)
    assert not any("refuses the api key" in reason for reason in reasons)


def test_a_broken_verifying_item_is_read_less_and_less_often(site: Site) -> None:
    """A delivery conflicts with the mirror, and the item is unreadable."""
    daemon = site.serve()
    broken = min(site.catalogue.names)
    variant = site.catalogue.of_item(broken)[0]
    site.api.faults.always = {broken: "403"}
    body = site.body(site.change(variant.variant_id, "made to order"), timestamp=None)
    assert daemon.post(body).json()["outcome"] == "verifying"
    path = f"/v1/items/{broken}/"
    site.until(lambda: sum(call.path == path for call in site.api.calls) >= 4)
    assert command(site, "--item", str(max(site.catalogue.names)))[0] == 0
    assert sum(call.path == path for call in site.api.calls) < 15
    row = site.variant(variant.variant_id)
    assert (row["verifying"], row["sellable"]) == (1, 0)


def test_a_key_that_the_list_refuses_is_reported(site: Site) -> None:
    """In Dreamship's own error format."""
    daemon = site.serve()
    site.api.faults.refused_with = 403
    code, summary, err = command(site)
    assert (code, summary["result"]) == (4, "failed")
    assert "refused" in err
    assert any("refuses the api key" in reason for reason in daemon.status()["reasons"])


def test_a_key_revoked_during_a_sweep_is_noticed(site: Site) -> None:
    """The first refused item makes the sweep read the list once more."""
    reconcile(site)

    def revoke(_: int) -> None:
        site.api.faults.refused_with = 401

    site.api.faults.after_page = revoke
    result, summary = reconcile(site)
    assert (result, summary.removed) == ("failed", 0)
    assert "refused: " in summary.error


@pytest.mark.parametrize("down", ["html-403", "gateway-403", "gateway-404", "500"])
def test_a_challenge_page_does_not_mean_a_refused_key(site: Site, down: Fault) -> None:
    """Before every answer: the sweep fails, and nothing is removed."""
    reconcile(site)
    site.api.faults.always = dict.fromkeys(site.catalogue.names, down)
    site.api.faults.always_page = dict.fromkeys(range(1, 9), down)
    result, summary = reconcile(site)
    assert (result, summary.removed) == ("failed", 0)
    assert summary.error.startswith("unreachable: ")
    assert counted(site, "removed") == 0


# --- pages and categories ------------------------------------------------------------------------


@pytest.fixture
def large(open_site: Callable[..., AbstractContextManager[Site]], tmp_path: Path) -> Any:
    """Give a site whose list has three pages."""
    with open_site(tmp_path, items=230, variants_per_item=1) as site:
        yield site


@pytest.mark.parametrize(("page", "listed"), [(1, 130), (2, 130), (3, 200)])
def test_a_broken_page_does_not_stop_the_first_fill(large: Site, page: int, listed: int) -> None:
    """The other pages are read, and the broken page is named."""
    large.api.faults.always_page = {page: "500"}
    result, summary = reconcile(large)
    assert (result, summary.items) == ("partial", listed)
    assert f"page {page} of the list" in summary.error
    assert summary.calls < listed + 20


def test_a_broken_page_does_not_stop_a_sweep(large: Site) -> None:
    """Known items are read, whether or not a page lists them."""
    assert reconcile(large)[0] == "complete"
    large.api.faults.always_page = {2: "500"}
    for variant_id in list(large.catalogue.variants):
        large.catalogue.set_availability(variant_id, "made to order")
    result, summary = reconcile(large)
    assert (result, summary.items, summary.changed) == ("partial", 230, 230)
    assert large.differences == 0


def test_an_unreadable_row_does_not_stop_its_page(site: Site) -> None:
    """The other rows are listed."""
    site.api.faults.rows = lambda rows: [None, {"name": "no id"}, {"id": "x"}, *rows]
    result, summary = reconcile(site)
    assert (result, summary.items) == ("partial", 5)
    assert "3 rows of page 1 of the list" in summary.error
    assert site.differences == 0


@pytest.mark.parametrize("failure", ["404", "403", "500"])
def test_a_broken_category_does_not_stop_the_others(site: Site, failure: Fault) -> None:
    """The others are listed, and known items are read."""
    ids = sorted(site.catalogue.names)
    site.catalogue.categories = {1: set(ids[:2]), 2: set(ids[2:4]), 3: set(ids[4:])}
    site.configure(catalog={"categories": [1, 2, 3]})
    site.api.faults.always_category = {2: failure}
    result, summary = reconcile(site)
    assert (result, summary.items) == ("partial", 3)
    assert "category 2" in summary.error
    site.api.faults.always_category = {}
    assert reconcile(site)[0] == "complete"
    site.api.faults.always_category = {2: failure}
    result, summary = reconcile(site)
    assert (result, summary.items, summary.removed) == ("partial", 5, 0)


@pytest.mark.parametrize("end", ["", False, 0, {}, "null", "https://x.example/v1/items/?page=1"])
def test_every_form_of_the_last_page_ends_the_list(site: Site, end: object) -> None:
    """One call for the page, and the sweep is complete."""
    site.api.faults.next_page = end
    result, summary = reconcile(site)
    assert (result, summary.calls) == ("complete", 6)


@pytest.mark.parametrize("counts", [True, False])
def test_a_next_page_that_answers_404_ends_the_list(site: Site, *, counts: bool) -> None:
    """The list promises one page more than it has."""
    site.api.faults.next_page = "https://x.example/v1/items/?page=99"
    site.api.faults.counts = counts
    result, summary = reconcile(site)
    assert (result, summary.items) == ("complete", 5)


def test_a_dry_run_continues_after_broken_parts(site: Site) -> None:
    """It reports the differences of the rest."""
    reconcile(site)
    broken, *others = sorted(site.catalogue.names)
    site.api.faults.always = {broken: "403"}
    changed = site.catalogue.of_item(others[0])[0].variant_id
    site.catalogue.set_availability(changed, "made to order")
    code, summary, err = command(site, "--dry-run")
    assert (code, summary["result"], summary["failed_items"]) == (1, "partial", [broken])
    assert [one["variant_id"] for one in summary["differences"]] == [changed]
    assert f"item {broken}: " in err


def test_a_sweep_that_read_a_part_is_partial(site: Site) -> None:
    """The source went down in the middle; only a sweep that read nothing has failed."""
    reconcile(site)
    items = sorted(site.catalogue.names)

    def go_down(_: int) -> None:
        site.api.faults.always = dict.fromkeys(items[1:], "500")
        site.api.faults.always_page = {1: "500", 2: "500"}

    site.api.faults.after_page = go_down
    result, summary = reconcile(site)
    assert (result, summary.failed_items) == ("partial", items[1:])
    assert "unreachable: " in summary.error


# --- absence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [lambda _: [], lambda rows: rows[:1]], ids=["empty", "shortened"])
def test_a_row_without_a_variant_removes_nothing(
    site: Site, cut: Callable[[list[Any]], list[Any]]
) -> None:
    """The sweep reads the item itself."""
    assert reconcile(site)[0] == "complete"
    site.api.faults.lists_variants = lambda _: True
    site.api.faults.cut_row = cut
    result, summary = reconcile(site)
    assert (result, summary.removed, summary.calls) == ("complete", 0, 6)
    assert counted(site, "removed OR verifying") == 0
    assert site.rows("SELECT count(*) AS n FROM changes") == [{"n": 20}]


def test_a_first_fill_from_rows_without_variants_reads_each_item(site: Site) -> None:
    """An empty list in a row does not mean an item without variants."""
    site.api.faults.lists_variants = lambda _: True
    site.api.faults.cut_row = lambda _: []
    assert reconcile(site)[0] == "complete"
    assert site.differences == 0


@pytest.mark.parametrize("failure", ["gateway-404", "html-404"])
def test_a_404_of_a_gateway_removes_nothing(site: Site, failure: Fault) -> None:
    """For half of the items the gateway has no route."""
    assert reconcile(site)[0] == "complete"
    gone = sorted(site.catalogue.names)[:3]
    site.api.faults.always = dict.fromkeys(gone, failure)
    _, summary = reconcile(site)
    assert (summary.removed, summary.failed_items) == (0, gone)
    assert counted(site, "removed OR verifying") == 0


@pytest.mark.parametrize("failure", ["404", "410"])
def test_dreamships_own_404_and_410_remove_an_item(site: Site, failure: Fault) -> None:
    """For exactly the item that was read, while the list answers."""
    assert reconcile(site)[0] == "complete"
    site.api.faults.always = {min(site.catalogue.names): failure}
    result, summary = reconcile(site)
    assert (result, summary.removed) == ("complete", 4)


@pytest.mark.parametrize("how", ["each item is 404", "each item has no variants"])
def test_removing_a_whole_small_shop_needs_an_operator(site: Site, how: str) -> None:
    """Twenty variants are few, and all of them are too many."""
    assert reconcile(site)[0] == "complete"
    if how == "each item is 404":
        site.api.faults.always = dict.fromkeys(site.catalogue.names, "404")
    else:
        site.catalogue.variants.clear()
    sellable = counted(site, "sellable")
    code, summary, err = command(site)
    assert (code, summary["result"], summary["removed"]) == (1, "partial", 0)
    assert "--accept-removals" in err
    assert counted(site, "sellable") == sellable
    code, summary, _ = command(site, "--accept-removals")
    assert (code, summary["removed"]) == (0, 20)


def test_a_404_counts_only_while_the_list_answers(site: Site) -> None:
    """With a wrong base URL every answer is 404, also in Dreamship's own format."""
    assert reconcile(site)[0] == "complete"
    site.api.faults.always = dict.fromkeys(site.catalogue.names, "404")
    site.api.faults.always_page = {1: "404", 2: "404"}
    result, summary = reconcile(site, min(site.catalogue.names))
    assert (result, summary.removed) == ("failed", 0)
    assert counted(site, "removed") == 0


@pytest.mark.parametrize("how", ["asked by an operator", "confirming deliveries"])
def test_the_removal_limit_counts_single_reads_too(
    open_site: Callable[..., AbstractContextManager[Site]], tmp_path: Path, how: str
) -> None:
    """Reads remove item after item: the limit holds over a day, not over one sweep."""
    with open_site(tmp_path, items=12, variants_per_item=10) as site:
        reconcile(site)
        ids = sorted(site.catalogue.names)
        site.api.faults.always = dict.fromkeys(ids, "404")
        if how == "asked by an operator":
            for item_id in ids:
                reconcile(site, item_id)
        daemon = site.serve()
        if how == "confirming deliveries":
            for item_id in ids:
                variant = site.catalogue.of_item(item_id)[0]
                daemon.deliver(site.change(variant.variant_id, "low_stock"))
            site.until(lambda: site.rows("SELECT 1 FROM refresh_queue") == [])
        removed = counted(site, "removed")
        assert 0 < removed <= 60
        assert counted(site, "NOT removed AND availability IS NOT NULL") == 120 - removed
        status = site.syncd("status")
        assert status.returncode == 1
        assert "--accept-removals" in status.stdout
        code, summary, _ = command(site, "--accept-removals")
        assert (code, summary["removed"]) == (0, 120 - removed)
        assert not any("--accept-removals" in reason for reason in daemon.status()["reasons"])


def test_reconcile_now_reports_an_unknown_item(site: Site) -> None:
    """`--item` of a wrong id ends 1 and names it, with --dry-run or without."""
    reconcile(site)
    for dry in ([], ["--dry-run"]):
        code, summary, err = command(site, "--item", "5", *dry)
        assert (code, summary["result"]) == (1, "partial")
        assert "Dreamship has no item 5" in err
