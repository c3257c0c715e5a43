"""Reading never ends: lost changes are repaired without an operator and without a sweep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from conftest import opened

from syncd.demo.fake_dreamship.faults import Throttle

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Daemon, Site

# The daemon looks at itself every 0.2 s instead of every 20 s.
HASTY = {"WATCHDOG_USEC": "400000"}


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Site]:
    """Give a site with forty items, which a background of six calls a minute reads in an hour."""
    with opened(tmp_path, items=40, variants_per_item=2) as site:
        yield site


def lose(site: Site, item_id: int, value: str = "out_of_stock") -> None:
    """Change each variant of an item, and lose the deliveries."""
    for variant in site.catalogue.of_item(item_id):
        site.catalogue.set_availability(variant.variant_id, value)


def reading(daemon: Daemon) -> dict[str, Any]:
    """Return how the daemon reads."""
    found: dict[str, Any] = daemon.status()["reading"]
    return found


def test_a_lost_change_is_repaired_without_a_request(site: Site) -> None:
    """A round reads every item; nothing else would find the change for six hours."""
    site.configure(reconcile={"background_calls_per_minute": 600})
    daemon = site.serve()
    for item_id in site.catalogue.names:
        lose(site, item_id)
    assert site.differences
    site.until(lambda: site.differences == 0)
    assert {row["cause"] for row in site.rows("SELECT cause FROM changes WHERE missed")} == {"read"}
    assert [line["cause"] for line in daemon.logged("sweep begins")] == ["start"]
    assert reading(daemon)["confirmed_60m"] == len(site.catalogue.names)


def test_evidence_of_a_loss_starts_a_read_of_everything_at_once(large: Site) -> None:
    """The background alone would take an hour; the status and the log say what happens."""
    large.configure(
        reconcile={"background_calls_per_minute": 6}, dreamship={"calls_per_minute": 1200}
    )
    daemon = large.serve(environ=HASTY)
    assert reading(daemon)["why"] == "background"
    for item_id in large.catalogue.names:
        lose(large, item_id)
    large.until(lambda: large.differences == 0)
    large.until(lambda: daemon.logged("everything was read again after a lost delivery"))
    begun = daemon.logged("a delivery was lost: everything that was read before is read again")
    assert begun[0]["found_at"]
    # Changes that were found meanwhile are evidence too, but a second catch-up waits for its turn.
    large.until(lambda: reading(daemon)["why"] == "background")


def test_with_0_background_calls_only_sweeps_read(site: Site) -> None:
    """As in version 0.1.0."""
    daemon = site.serve(environ=HASTY)
    calls = len(site.api.calls)
    lose(site, min(site.catalogue.names))
    beats = len(daemon.lines())
    site.until(lambda: daemon.status()["reading"]["rate_per_minute"] == 0 and beats)
    assert len(site.api.calls) == calls
    assert site.syncd("reconcile-now").returncode == 0
    assert site.differences == 0


def test_a_reload_turns_the_background_on_and_off(site: Site) -> None:
    """Without a restart."""
    daemon = site.serve()
    site.configure(reconcile={"background_calls_per_minute": 600})
    daemon.process.send_signal(1)
    lose(site, min(site.catalogue.names))
    site.until(lambda: site.differences == 0)
    site.configure(reconcile={"background_calls_per_minute": 0})
    daemon.process.send_signal(1)
    site.until(lambda: reading(daemon)["rate_per_minute"] == 0)


def test_an_operator_does_not_wait_for_the_background(large: Site) -> None:
    """`reconcile-now` reads everything at full rate, although a slow sweep has begun."""
    large.configure(reconcile={"background_calls_per_minute": 6})
    daemon = large.serve()
    large.configure(reconcile={"background_calls_per_minute": 7})
    daemon.process.send_signal(1)
    for item_id in large.catalogue.names:
        lose(large, item_id)
    done = large.syncd("reconcile-now", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["items"] == 40
    assert large.differences == 0


def test_a_429_slows_the_background_down(site: Site) -> None:
    """Status, page and metrics say so."""
    site.configure(
        reconcile={"background_calls_per_minute": 600}, dreamship={"calls_per_minute": 6000}
    )
    daemon = site.serve()
    site.api.faults.throttle = Throttle(calls=3, window_s=1.0)
    site.until(lambda: daemon.status()["budget"]["throttled_24h"] > 0)
    site.api.faults.throttle = None
    site.until(lambda: reading(daemon)["rate_per_minute"] > 0)
    assert reading(daemon)["why"] == "throttled"
    assert reading(daemon)["rate_per_minute"] <= 600 / 5 * 1.1
