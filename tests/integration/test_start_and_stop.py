"""Starts and stops of a daemon: refused starts, starts after a stop or a kill, open requests."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from msgspec import json
from raw_requests import dial, request

from syncd.demo.fake_dreamship import UPDATED, Event

if TYPE_CHECKING:
    from conftest import Daemon, Site


def test_the_first_start_fills_an_empty_mirror(shared: Daemon) -> None:
    """From a configuration alone; afterwards the mirror equals the source."""
    assert shared.site.differences == 0
    assert shared.logged("sweep ended")[0]["result"] == "complete"
    assert shared.site.rows("SELECT count(*) AS n FROM changes WHERE cause = 'read'") == [
        {"n": len(shared.site.catalogue.current_values())}
    ]


def test_changes_while_the_daemon_was_stopped_are_found(site: Site) -> None:
    """No listener took the deliveries; a reconcile finds the changes."""
    site.serve().stop()
    changed, gone = list(site.catalogue.variants)[:2]
    site.catalogue.set_availability(changed, "made to order")
    site.catalogue.remove_variant(gone)
    added = site.catalogue.add_item()
    assert site.differences > 0
    site.serve()
    done = site.syncd("reconcile-now", "--json")
    assert done.returncode == 0, done.stderr
    assert site.differences == 0
    summary = json.decode(done.stdout)
    assert (summary["changed"], summary["added"], summary["removed"]) == (1, 2, 1)
    assert len(site.rows("SELECT * FROM availability WHERE item_id = ?", added)) == 2


def test_a_start_after_a_long_time_sweeps_by_itself(site: Site) -> None:
    """The last complete sweep is older than `every`."""
    site.configure(reconcile={"every": "60s"})
    site.serve().stop()
    site.catalogue.set_availability(next(iter(site.catalogue.variants)), "made to order")
    site.configure(reconcile={"every": "1s"})
    site.serve()
    site.until(lambda: site.differences == 0)


def test_answered_deliveries_survive_a_kill(site: Site) -> None:
    """Each 200, even in the middle of a storm of deliveries."""
    daemon = site.serve()
    variants = list(site.catalogue.variants)
    answered: list[tuple[str, str]] = []
    go_on = threading.Event()
    go_on.set()

    def storm(number: int) -> None:
        with httpx.Client(trust_env=False) as client:
            while go_on.is_set():
                output = Event(UPDATED, "item_variant", variants[number % 20], site.catalogue.now())
                try:
                    answer = daemon.post(site.body(output), client=client)
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    answered.append((output.uuid, answer.json()["outcome"]))

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(storm, number)
        site.until(lambda: len(answered) > 200)
        daemon.kill()
        go_on.clear()
    stored = {row["event_id"] for row in site.rows("SELECT event_id FROM deliveries")}
    assert {event_id for event_id, _ in answered} <= stored
    site.serve()
    assert {event_id for event_id, _ in answered} <= {
        row["event_id"] for row in site.rows("SELECT event_id FROM deliveries")
    }


def test_accepted_requests_are_answered_before_the_stop(site: Site) -> None:
    """SIGTERM during requests: 200 or 503, and never a reset."""
    daemon = site.serve()
    variants = list(site.catalogue.variants)
    bodies = [
        site.body(Event(UPDATED, "item_variant", variant_id, site.catalogue.now()))
        for variant_id in variants
    ]
    connections = [dial(daemon, 10) for _ in bodies]
    try:
        halves = []
        for number, body in enumerate(bodies):
            whole = request(daemon, body)
            # Every second connection has been accepted, and has sent nothing yet.
            cut = len(whole) - 20 if number % 2 else 0
            halves.append((whole[:cut], whole[cut:]))
        for connection, (first, _) in zip(connections, halves, strict=True):
            connection.sendall(first)
        site.until(daemon.status)
        daemon.process.send_signal(signal.SIGTERM)
        site.until(lambda: daemon.logged("stopping"))
        # Longer than uvicorn alone would wait for them, shorter than the daemon does.
        time.sleep(0.14)
        for connection, (_, rest) in zip(connections, halves, strict=True):
            connection.sendall(rest)
        answers = [connection.recv(65536) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert daemon.process.wait(20) == 0
    assert {answer.split()[1] for answer in answers} <= {b"200", b"503"}
    taken = sum(answer.split()[1] == b"200" for answer in answers)
    assert site.delivery_count == taken
    assert taken == len(bodies)


def test_a_second_daemon_is_refused(site: Site) -> None:
    """Exit 5 with the pid of the first, which goes on."""
    daemon = site.serve()
    second = site.syncd("serve")
    assert second.returncode == 5, second.stderr
    assert f"pid {daemon.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    event = site.change(next(iter(site.catalogue.variants)), "low_stock")
    assert daemon.deliver(event) == "applied"


def test_a_second_daemon_leaves_the_sockets_of_the_first(site: Site) -> None:
    """The control socket still answers."""
    site.serve().deliver_first()
    assert site.syncd("serve").returncode == 5
    assert site.syncd("status").returncode == 0


def test_without_a_configuration_the_start_fails_with_a_hint(idle: Site) -> None:
    """Exit 2 and the places that were searched."""
    idle.config.unlink()
    done = idle.syncd("serve", config=False)
    assert done.returncode == 2
    assert "`syncd setup` asks and writes one" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_key_the_start_fails(idle: Site) -> None:
    """It could verify and read nothing."""
    idle.configure(dreamship={"api_keys": []})
    done = idle.syncd("serve")
    assert done.returncode == 2
    assert "api key" in done.stderr
    assert not idle.mirror.exists()


def test_an_address_in_use_is_named(idle: Site) -> None:
    """Exit 2 with its configuration key."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        idle.configure(webhook={"listen": f"127.0.0.1:{taken.getsockname()[1]}"})
        done = idle.syncd("serve")
    assert done.returncode == 2
    assert "webhook.listen" in done.stderr


def test_it_can_listen_on_a_unix_socket(site: Site) -> None:
    """For a web server on the same host, perhaps of another user."""
    path = site.folder / "web.sock"
    site.configure(webhook={"listen": f"unix:{path}"})
    daemon = site.serve(filled=False)
    assert daemon.webhook_url.startswith(f"unix:{path}")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://syncd/healthz").status_code == 200
    assert path.stat().st_mode & 0o777 == 0o666
    daemon.stop(signal.SIGINT)
    assert daemon.logged("stopped")


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_during_the_start_is_exit_0(idle: Site, number: str) -> None:
    """Before the daemon has read its configuration."""
    program = f"""
import os, signal
from syncd.cli import run, serve
serve.load_for_daemon = lambda _: os.kill(os.getpid(), signal.{number})
raise SystemExit(run(["serve"]))
"""
    done = subprocess.run([sys.executable, "-c", program], env=idle.environ, check=False)
    assert done.returncode == 0
