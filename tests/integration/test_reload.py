"""Reloads of a daemon by SIGHUP: configuration, api keys, and the next sweep."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Site


def test_a_reload_applies_a_valid_configuration_only(site: Site) -> None:
    """SIGHUP: a faulty one is reported and not applied."""
    daemon = site.serve()
    body = site.body(site.change(next(iter(site.catalogue.variants)), "low_stock"))
    assert daemon.post(body, key="the_second_key").status_code == 401
    site.configure(dreamship={"api_keys": [site.key, "the_second_key"]})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: daemon.logged("reloaded"))
    assert daemon.post(body, key="the_second_key").status_code == 200
    assert daemon.post(body).status_code == 200
    site.configure(dreamship={"api_keys": ["the_third_key"]}, retention={"deliveries": "soon"})
    daemon.process.send_signal(signal.SIGHUP)
    broken = "the new configuration is invalid; the old one stays in force"
    site.until(lambda: daemon.logged(broken))
    assert "retention.deliveries" in daemon.logged(broken)[0]["error"]
    assert daemon.post(body, key="the_third_key").status_code == 401
    assert daemon.post(body, key="the_second_key").status_code == 200
    daemon.stop()


def test_a_refused_key_is_reported_until_a_reload_has_a_valid_one(site: Site) -> None:
    """Reading stops, and resumes by itself."""
    site.configure(dreamship={"api_keys": ["wrong", site.key]})
    daemon = site.serve(filled=False)
    site.until(lambda: daemon.status()["health"] == "failing")
    assert any("refuses the api key" in reason for reason in daemon.status()["reasons"])
    calls = len(site.api.calls)
    assert daemon.post(site.body(site.change(next(iter(site.catalogue.variants)), "x"))).is_success
    site.configure(dreamship={"api_keys": [site.key]})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: daemon.logged("reloaded"))
    site.until(lambda: site.differences == 0)
    assert not any("refuses" in reason for reason in daemon.status()["reasons"])
    assert calls <= 3


def test_a_reload_with_another_wrong_key_is_reported_at_once(site: Site) -> None:
    """Not only after the next sweep hours later."""
    site.configure(dreamship={"api_keys": ["wrong", site.key]})
    daemon = site.serve(filled=False)
    site.until(lambda: len(daemon.logged("Dreamship refuses the api key")) == 1)
    site.configure(dreamship={"api_keys": ["another_wrong_one", site.key]})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: len(daemon.logged("Dreamship refuses the api key")) == 2)
    assert daemon.status()["health"] == "failing"


def test_reloads_do_not_delay_the_next_sweep(site: Site) -> None:
    """Else a host that reloads often would never sweep."""
    daemon = site.serve()
    site.until(lambda: daemon.logged("sweep ended"))

    def reload() -> str:
        before = len(daemon.logged("reloaded"))
        daemon.process.send_signal(signal.SIGHUP)
        site.until(lambda: len(daemon.logged("reloaded")) > before)
        next_at: str = daemon.status()["sweep"]["next_at"]
        return next_at

    first = reload()
    assert reload() <= first
    site.configure(reconcile={"every": "10m"})
    sooner = reload()
    assert sooner < first
    site.configure(reconcile={"every": "6h"})
    assert reload() == sooner
