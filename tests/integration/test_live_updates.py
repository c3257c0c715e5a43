"""The stream of events for an open status page: bounded, and no burden for anything else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from load.station import free_port
from proxies import NGINX, find_program, running

from syncd.admin.live import MAX_STREAMS, RETRY_AFTER_S, LiveUpdates

if TYPE_CHECKING:
    from conftest import Daemon, Site


@contextlib.contextmanager
def stream(url: str, **options: Any) -> Iterator[Iterator[str]]:
    """Open a stream, and give the lines that name its events."""
    with (
        httpx.Client(trust_env=False, timeout=20) as client,
        client.stream("GET", f"{url}/events", **options) as answer,
    ):
        assert answer.status_code == HTTPStatus.OK
        yield (line for line in answer.iter_lines() if line.startswith("event: "))


def test_a_change_is_reported_at_once(shared: Daemon) -> None:
    """The stream begins with its beginning, and nothing else happens in between."""
    site = shared.site
    with stream(shared.admin_url) as events:
        assert next(events) == "event: begin"
        shared.deliver(site.change(next(iter(site.catalogue.variants)), "made to order"))
        began_s = time.monotonic()
        assert next(events) == "event: change"
        assert time.monotonic() - began_s < 5


def test_the_answer_has_the_headers_of_all_answers(shared: Daemon) -> None:
    """And nginx must not collect it; HEAD has no stream, and other methods are refused."""
    url = f"{shared.admin_url}/events"
    with httpx.stream("GET", url, trust_env=False) as answer:
        headers = answer.headers
    assert headers["Content-Type"] == "text/event-stream"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    head = httpx.head(url, trust_env=False)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"].startswith("text/event-stream")
    assert httpx.post(url, trust_env=False).status_code == 405
    foreign = httpx.get(url, headers={"Host": "evil.example"}, trust_env=False)
    assert foreign.status_code == 421


def test_streams_are_limited(shared: Daemon) -> None:
    """Further ones get Retry-After, pages have their own limit, and an end frees a place."""
    url = shared.admin_url
    with contextlib.ExitStack() as opened:
        # An iterator that nobody references closes its stream.
        streams = [opened.enter_context(stream(url)) for _ in range(MAX_STREAMS)]
        assert {next(events) for events in streams} == {"event: begin"}
        refused = httpx.get(f"{url}/events", trust_env=False)
        assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert refused.headers["Retry-After"] == str(RETRY_AFTER_S)
        for path in ("/", "/status.json", "/metrics"):
            assert httpx.get(f"{url}{path}", trust_env=False).is_success

    def is_free() -> bool:
        with httpx.stream("GET", f"{url}/events", trust_env=False) as answer:
            return answer.status_code == HTTPStatus.OK

    shared.site.until(is_free)


def test_a_reload_ends_all_streams(site: Site) -> None:
    """A new one begins at once."""
    daemon = site.serve(filled=False)
    with stream(daemon.admin_url) as one, stream(daemon.admin_url) as other:
        assert [next(one), next(other)] == ["event: begin"] * 2
        os.kill(daemon.process.pid, signal.SIGHUP)
        began_s = time.monotonic()
        for events in (one, other):
            assert set(events) <= {"event: change"}
        assert time.monotonic() - began_s < 3
    with stream(daemon.admin_url) as events:
        assert next(events) == "event: begin"


def test_streams_do_not_keep_the_daemon_from_stopping(site: Site) -> None:
    """They end at once, so the stop takes no longer than without them."""
    daemon = site.serve(filled=False)
    with contextlib.ExitStack() as opened:
        streams = [opened.enter_context(stream(daemon.admin_url)) for _ in range(MAX_STREAMS)]
        for events in streams:
            next(events)
        began_s = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        for events in streams:
            assert set(events) <= {"event: change"}
        assert time.monotonic() - began_s < 3
        assert daemon.process.wait(timeout=4) == 0


@pytest.mark.parametrize("is_busy", [False, True])
def test_events_are_rare(is_busy: bool) -> None:
    """At most one each five seconds; without a change only a sign of life each twenty."""

    async def scenario() -> list[bytes]:
        counter = itertools.count() if is_busy else itertools.repeat(1)
        # A tenth of the real times.
        live = LiveUpdates(
            counter.__next__, lambda: "now", check_s=0.01, at_most_every_s=0.5, alive_every_s=2
        )
        asyncio.get_running_loop().call_later(2.2, live.end)
        return [event async for event in live.events()]

    begin, *others = asyncio.run(scenario())
    assert begin == b"retry: 3000\n\nevent: begin\ndata: now\n\n"
    if is_busy:
        assert set(others) == {b"event: change\ndata: now\n\n"}
        assert 3 <= len(others) <= 5
    else:
        assert others == [b"event: alive\ndata: now\n\n"]


def test_a_closed_listener_takes_no_new_stream() -> None:
    """While the daemon stops, a browser that connects again must not delay the stop."""
    live = LiveUpdates(lambda: 1, lambda: "now")
    live.close()
    with pytest.raises(Exception, match="may run at the same time"), live.places.one():
        pass


def test_events_pass_nginx_at_once(shared: Daemon, tmp_path: Path) -> None:
    """With its default settings, which buffer answers."""
    port = free_port()
    site = f"""
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {tmp_path}/x.pem;
        ssl_certificate_key {tmp_path}/x.pem;
        location / {{ proxy_pass {shared.admin_url}; }}
    }}"""
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    pem = str(tmp_path / "x.pem")
    subprocess.run([*certificate, "-keyout", pem, "-out", pem], check=True, capture_output=True)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, site=site))
    variant_id = next(iter(shared.site.catalogue.variants))
    nginx = find_program("nginx")
    with (
        running(tmp_path, port, nginx, "-e", "stderr", "-c", str(config)),
        httpx.Client(trust_env=False, verify=False, timeout=8) as client,  # noqa: S501 - loopback
        client.stream("GET", f"https://127.0.0.1:{port}/events") as answer,
    ):
        events = (line for line in answer.iter_lines() if line.startswith("event: "))
        assert next(events) == "event: begin"
        shared.deliver(shared.site.change(variant_id, "in_stock"))
        shared.deliver(shared.site.change(variant_id, "made to order"))
        assert next(events) == "event: change"
