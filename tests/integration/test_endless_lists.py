"""An endless list affects only itself: it is named, and everything else is read.

The tests use real sockets, the real client, a real mirror, and a Dreamship that invents items.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from syncd.config import load
from syncd.core import pagination
from syncd.core.jobs import SweepSummary
from syncd.daemon.services import Services

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Site

PAGE = re.compile(r"/v1/(items|categories/\d+/items)/")


def reconcile(site: Site) -> SweepSummary:
    """Sweep as `reconcile-now` does without a daemon."""

    async def run() -> SweepSummary:
        async with await Services.open(load(site.config, {})) as services:
            sweep_id, _ = await services.sweep_manager.request("operator")
            services.start_reading()
            return await services.sweep_manager.wait(sweep_id)

    return asyncio.run(asyncio.wait_for(run(), 50))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have lists end after fewer items: each is asked for by itself."""
    monkeypatch.setattr(pagination, "MAX_ITEMS", 400)


def test_an_endless_list_is_named_and_removes_nothing(site: Site) -> None:
    """Listed items and known items are read."""
    assert reconcile(site).result == "complete"
    site.api.faults.endless = True
    changed = min(site.catalogue.variants)
    site.catalogue.set_availability(changed, "made to order")
    summary = reconcile(site)
    assert (summary.result, summary.removed, summary.changed) == ("partial", 0, 1)
    assert summary.error == "the list goes on after 400 items on 4 pages"
    assert site.differences == 0
    site.api.faults.endless = False
    assert reconcile(site).result == "complete"


def test_a_dry_run_of_an_endless_list_ends(site: Site) -> None:
    """And names it."""
    assert reconcile(site).result == "complete"
    site.api.faults.endless = True

    async def check() -> SweepSummary:
        async with await Services.open(load(site.config, {})) as services:
            return await services.dry_run().run(())

    summary = asyncio.run(asyncio.wait_for(check(), 50))
    assert (summary.result, summary.changed, summary.removed) == ("partial", 0, 0)
    assert summary.error == "the list goes on after 400 items on 4 pages"


def test_an_endless_category_does_not_stop_the_next_one(site: Site) -> None:
    """The next one is listed."""
    ids = sorted(site.catalogue.names)
    site.catalogue.categories = {1: set(ids[:2]), 2: set(ids[2:])}
    site.configure(catalog={"categories": [1, 2]})
    site.api.faults.endless = 1
    summary = reconcile(site)
    assert summary.result == "partial"
    assert summary.error == "category 1 goes on after 400 items on 4 pages"
    assert site.differences == 0


def test_an_item_is_read_between_two_pages(site: Site) -> None:
    """Two pages never follow each other while items wait."""
    site.api.faults.endless = True
    reconcile(site)
    requested = [bool(PAGE.fullmatch(call.path)) for call in site.api.calls]
    pages = [number for number, is_page in enumerate(requested) if is_page]
    assert len(pages) >= 4
    assert all(later - one > 1 for one, later in pairwise(pages[:4]))


def test_a_delivery_is_confirmed_during_an_endless_list(site: Site) -> None:
    """In a daemon with the real bound: some hundred pages are left by then."""
    site.configure(dreamship={"calls_per_minute": 600})
    daemon = site.serve()
    site.api.faults.endless = True
    variant = site.catalogue.variants[min(site.catalogue.variants)]
    path = f"/v1/items/{variant.item_id}/"
    site.api.calls.clear()
    command = site.command("reconcile-now")
    waiting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        site.until(lambda: sum(call.path == "/v1/items/" for call in site.api.calls) > 5)
        before = sum(call.path == path for call in site.api.calls)
        daemon.deliver(site.change(variant.variant_id, "made to order"))
        site.until(lambda: sum(call.path == path for call in site.api.calls) > before)
        site.until(lambda: not site.variant(variant.variant_id)["verifying"])
        status = daemon.status()
        assert status["sweep"]["running"]
        assert status["sweep"]["eta_seconds"] is None
    finally:
        waiting.kill()
        waiting.wait()
    daemon.stop()
