"""Two daemons of one shop on two hosts: one Dreamship, one database server, a proxy in front."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from conftest import Daemon, Site
from targets import Database

from syncd.errors import DaemonAbsent

# A lease of a minute would make each test last for minutes. Both hosts have the same one.
LEASE_S = 4.0


class Host:
    """One host: a site, its daemon, and what both did."""

    def __init__(self, site: Site, environ: dict[str, str]) -> None:
        self.site = site
        self.environ = {"SYNCD_TEST_LEASE_S": str(LEASE_S), **environ}
        self.daemons: list[Daemon] = []

    def start(self) -> Daemon:
        """Start the daemon; it is ready, and serves or waits."""
        self.daemons.append(self.site.serve(filled=False, environ=self.environ))
        return self.daemon

    @property
    def daemon(self) -> Daemon:
        return self.daemons[-1]

    @property
    def publish(self) -> dict[str, Any]:
        """Return the state of the publication in its status."""
        document: dict[str, Any] = self.daemon.status()["publish"]
        return document

    def is_state(self, state: str) -> bool:
        with contextlib.suppress(DaemonAbsent):
            return bool(self.publish["state"] == state)
        return False

    @property
    def is_serving(self) -> bool:
        """Return whether the proxy in front would choose this host."""
        with contextlib.suppress(httpx.TransportError):
            return self.answer().status_code == 200
        return False

    def answer(self) -> httpx.Response:
        """Return the answer of `/healthz`."""
        base = httpx.URL(self.daemon.webhook_url).copy_with(path="/healthz")
        return httpx.get(base, trust_env=False, timeout=2)

    def pause(self) -> None:
        self.daemon.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.daemon.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Let the daemon write nothing into files."""
        pid = self.daemon.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def leases(self) -> list[int]:
        """Return the epochs that its daemons took."""
        event = "the lease of the published source was taken"
        return [line["epoch"] for one in self.daemons for line in one.logged(event)]


class Shop:
    """Both hosts, and the deliveries that the proxy in front of them sends to one that serves."""

    def __init__(self, target: Database, first: Host, second: Host) -> None:
        self.target = target
        self.first = first
        self.second = second
        self.catalogue = first.site.catalogue
        self._numbers = count()

    def post(self, body: bytes) -> bool:
        """Deliver as a proxy does: to the first host that takes it; return whether one did."""
        for host in (self.first, self.second):
            if not host.daemons or host.daemon.process.poll() is not None:
                continue
            try:
                with httpx.Client(trust_env=False, timeout=1) as client:
                    if host.daemon.post(body, client=client).status_code == 200:
                        return True
            except httpx.TransportError:
                continue
        return False

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Change variants until the end; Dreamship repeats what nobody has taken."""
        over = threading.Event()
        waiting: list[bytes] = []

        def change() -> None:
            variants = sorted(self.catalogue.variants)
            while not over.is_set() or waiting:
                if not over.is_set():
                    number = next(self._numbers)
                    value = ("out_of_stock", "in_stock")[number // len(variants) % 2]
                    event = self.first.site.change(variants[number % len(variants)], value)
                    waiting.append(self.first.site.body(event))
                waiting[:] = [body for body in waiting if not self.post(body)]
                time.sleep(0.05)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def difference(self) -> dict[int, tuple[Any, Any]]:
        """Return the variants whose value in the target is not that of Dreamship."""
        wanted: dict[int, Any] = dict(self.catalogue.current_values())
        found = {row["variant_id"]: row["availability"] for row in self.target.rows("availability")}
        keys = wanted.keys() | found.keys()
        return {
            key: (wanted.get(key), found.get(key))
            for key in keys
            if wanted.get(key) != found.get(key)
        }

    def require_one_writer(self) -> None:
        """Fail if two daemons had one epoch, or a row is of an epoch that nobody took."""
        first, second = self.first.leases(), self.second.leases()
        taken = first + second
        assert len(taken) == len(set(taken)), (first, second)
        rows = self.target.query(
            f"SELECT DISTINCT epoch FROM {self.target.prefix}variants"  # noqa: S608
        )
        assert {row["epoch"] for row in rows} <= set(taken)


def until(done: Callable[[], object], within_s: float = 30.0) -> float:
    """Return how long it took until the condition held; fail if it does not hold in time."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() < began + within_s, f"not within {within_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - began


def make_host(
    folder: Path, like: Site, url: str, *, environ: dict[str, str] | None = None, **publish: Any
) -> Host:
    """Return a host with its own mirror and the Dreamship of another site."""
    folder.mkdir(parents=True, exist_ok=True)
    site = Site(folder, like.api, like.settings["dreamship"]["base_url"])
    site.configure(publish={"url": url, "standby": True} | publish)
    return Host(site, environ or {})
