"""Two daemons and one database: one serves, the other one waits and takes over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import targets
from conftest import Site
from hosts import LEASE_S, Shop, make_host, until
from targets import CuttingProxy, Database

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with targets.running(targets.Postgresql) as one:
        yield one


@pytest.fixture
def shop(tmp_path: Path, site: Site, target: Database, proxy: CuttingProxy) -> Iterator[Shop]:
    """Give both hosts; the first one reaches the database through the proxy."""
    first = make_host(tmp_path / "a", site, target.url(port=proxy.port))
    second = make_host(tmp_path / "b", site, target.url())
    with closing(first.site), closing(second.site):
        yield Shop(target, first, second)


def start(shop: Shop) -> None:
    """Start both: the first one serves and is filled, the second one waits."""
    shop.first.start()
    until(lambda: shop.first.is_serving)
    until(lambda: shop.first.daemon.status()["sweep"]["last_result"] == "complete")
    shop.second.start()
    until(lambda: shop.second.is_state("standby"))


def until_equal(shop: Shop) -> None:
    try:
        until(lambda: not shop.difference())
    except AssertionError:
        raise AssertionError(shop.difference()) from None


def test_a_standby_waits(shop: Shop) -> None:
    """It is healthy, answers 503, asks Dreamship nothing, and names the active host."""
    start(shop)
    calls = len(shop.first.site.api.calls)
    second = shop.second
    assert second.answer().status_code == 503
    event = second.site.change(min(shop.catalogue.variants), "out_of_stock")
    answer = second.daemon.post(second.site.body(event))
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert second.site.delivery_count == 0
    status = second.daemon.status()
    assert (status["health"], status["reasons"]) == ("ok", [])
    assert status["publish"]["active_host"] == os.uname().nodename
    assert status["publish"]["error"] is None
    for arguments in (
        ("reconcile-now",),
        ("reconcile-now", "--dry-run"),
        ("replay", "--quarantined"),
    ):
        done = second.site.syncd(*arguments)
        assert done.returncode == 1, done.stderr
        assert os.uname().nodename in done.stderr
        assert "take-over" in done.stderr
    shown = second.site.syncd("status")
    assert shown.returncode == 0
    assert "reading           nothing while this host waits\n" in shown.stdout
    assert "next sweep" not in shown.stdout
    assert status["budget"]["used_last_minute"] == 0
    assert len(shop.first.site.api.calls) == calls


def test_after_a_clean_stop_the_waiting_host_is_active_at_once(shop: Shop) -> None:
    start(shop)
    with shop.changing():
        time.sleep(0.5)
        shop.first.daemon.stop()
        took_s = until(lambda: shop.second.is_serving)
    assert took_s < LEASE_S
    until_equal(shop)
    shop.first.start()
    until(lambda: shop.first.is_state("standby"))
    # The first host is active again: its mirror has the changes that the second one wrote.
    with shop.changing():
        shop.second.daemon.stop()
        until(lambda: shop.first.is_serving)
    until_equal(shop)
    shop.require_one_writer()


def test_after_a_crash_the_waiting_host_is_active(shop: Shop, tmp_path: Path) -> None:
    """The clock of the standby is ahead by three hours: only that of the database counts."""
    (tmp_path / "ahead").write_text("10800")
    folders = (str(Path(__file__).parents[1] / "set_clock"), os.environ.get("PYTHONPATH", ""))
    path = os.pathsep.join(filter(None, folders))
    shop.second.environ |= {"SET_CLOCK": str(tmp_path / "ahead"), "PYTHONPATH": path}
    start(shop)
    with shop.changing():
        time.sleep(0.5)
        shop.first.daemon.kill()
        took_s = until(lambda: shop.second.is_serving)
        time.sleep(0.5)
    assert took_s >= LEASE_S / 2
    until_equal(shop)
    shop.first.start()
    until(lambda: shop.first.is_state("standby"))
    shop.require_one_writer()


def test_with_mariadb(tmp_path: Path, site: Site) -> None:
    """The same lease on the other server: a clean stop, and a host that was killed."""
    with targets.running(targets.Mariadb) as server:
        target = server.database()
        first = make_host(tmp_path / "a", site, target.url())
        second = make_host(tmp_path / "b", site, target.url())
        with closing(first.site), closing(second.site):
            shop = Shop(target, first, second)
            start(shop)
            with shop.changing():
                first.daemon.stop()
                until(lambda: second.is_serving)
                first.start()
                second.daemon.kill()
                until(lambda: first.is_serving)
            until_equal(shop)
            shop.require_one_writer()


def test_a_daemon_that_was_paused_is_fenced(shop: Shop) -> None:
    """On waking it takes no delivery before it has checked its lease."""
    start(shop)
    with shop.changing():
        time.sleep(0.5)
        shop.first.pause()
        until(lambda: shop.second.is_serving)
        time.sleep(0.5)
        event = shop.first.site.change(min(shop.catalogue.variants), "in_stock")
        shop.first.resume()
        assert shop.first.daemon.post(shop.first.site.body(event)).status_code == 503
        until(lambda: shop.first.is_state("fenced"))
    assert not shop.first.is_serving
    until_equal(shop)
    shop.require_one_writer()


def test_a_host_that_cannot_write_its_mirror_releases_its_lease(shop: Shop) -> None:
    """Nobody else takes it, so that this host serves again as soon as it can write."""
    # A heartbeat twice a second.
    shop.first.environ["WATCHDOG_USEC"] = "1000000"
    shop.first.start()
    until(lambda: shop.first.is_serving)
    holder = f"SELECT holder FROM {shop.target.prefix}sources"  # noqa: S608
    with shop.first.full_disk():
        until(lambda: shop.target.query(holder) == [{"holder": None}])
    until(lambda: shop.first.is_serving)
    with shop.changing():
        time.sleep(0.5)
    until_equal(shop)
    shop.require_one_writer()


def test_without_standby_a_waiting_host_serves_although_the_database_is_down(
    shop: Shop, proxy: CuttingProxy
) -> None:
    """The active host has failed together with the database; a reload decides."""
    shop.second.start()
    until(lambda: shop.second.is_serving)
    shop.first.start()
    until(lambda: shop.first.is_state("standby"))
    proxy.accepts = False
    proxy.cut()
    shop.second.daemon.kill()
    until(lambda: shop.first.is_state("failing"))
    assert not shop.first.is_serving
    publish = shop.first.site.settings["publish"] | {"standby": False}
    shop.first.site.configure(publish=publish)
    shop.first.daemon.process.send_signal(signal.SIGHUP)
    until(lambda: shop.first.is_serving)
    proxy.accepts = True
    with shop.changing():
        until(lambda: shop.first.is_state("active"))
    until_equal(shop)


def test_a_daemon_without_the_database_goes_on_until_it_is_back(
    shop: Shop, proxy: CuttingProxy
) -> None:
    """Deliveries matter more than the publication; then it is fenced."""
    start(shop)
    with shop.changing():
        proxy.accepts = False
        proxy.cut()
        until(lambda: shop.second.is_serving)
        assert shop.first.answer().status_code == 200
        proxy.accepts = True
        until(lambda: shop.first.is_state("fenced"))
        assert shop.first.answer().status_code == 503
    done = shop.second.site.syncd("reconcile-now")
    assert done.returncode == 0, done.stderr
    until_equal(shop)
    shop.require_one_writer()
