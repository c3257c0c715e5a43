"""The parts that all tests share: random seeds, skips that CI forbids, and a whole site."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from msgspec import json, to_builtins
from raw_requests import order

from syncd.cli.common import secrets
from syncd.control.client import request_status
from syncd.core.signature import HEADER, sign
from syncd.demo.compare import compare
from syncd.demo.fake_dreamship import Api, Catalog, Event, WebhookSender, serving_in_thread
from syncd.store import Database
from syncd.store.migrations import migrate

if TYPE_CHECKING:
    from targets import CuttingProxy, Server
    from targets import Database as TargetDatabase

settings.register_profile(
    "default", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`."""
    parser.addoption("--long", action="store_true", help="run the tests that take long, too")


def _leaves_out_long(config: pytest.Config) -> bool:
    """Return whether the command names no tests, and long ones are not wanted."""
    names_none = (
        config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.markexpr
    )
    return names_none and not config.option.long and os.environ.get("CI") != "true"


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node: Any) -> None:
    """Let each worker know; a worker gets its tests by name."""
    node.workerinput["leaves_out_long"] = _leaves_out_long(node.config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out long tests, or let them begin, for an even load on the workers."""
    of_worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if of_worker["leaves_out_long"] if of_worker else _leaves_out_long(config):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI, which installs every program that a test needs."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI does not allow: {report.longrepr}"
    return report


KEY = "ds_test_0123456789abcdef"
SOON = Path(__file__).with_name("soon.py")


def soon(command: list[str]) -> list[str]:
    """Return a command of syncd with the shorter waits of tests/soon.py."""
    if "-m" not in command:
        return command
    at = command.index("-m")
    return [*command[:at], str(SOON), *command[at + 2 :]]


def unmeasured(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which coverage does not start."""
    return {name: value for name, value in environ.items() if "COV" not in name.upper()}


class Site:
    """One installation in its own folder: a simulated Dreamship, a configuration, a mirror."""

    def __init__(self, folder: Path, api: Api, base_url: str) -> None:
        self.folder = folder
        self.api = api
        self.catalogue = api.catalogue
        self.key = KEY
        self.mirror = folder / "mirror" / "availability.db"
        self.socket = folder / "control.sock"
        self.config = folder / "config.toml"
        self.settings: dict[str, dict[str, Any]] = {
            "dreamship": {"base_url": base_url, "api_keys": [KEY], "calls_per_minute": 6000},
            "webhook": {"listen": "127.0.0.1:0"},
            "mirror": {"path": str(self.mirror)},
            # Several values that may be sold: the simulated catalogue has both.
            "availability": {"sellable": ["in_stock", "low_stock"]},
            "reconcile": {
                "settle": "1s",
                "missed_grace": "1s",
                # So that a test knows each call.
                "background_calls_per_minute": 0,
            },
            "admin": {"listen": "127.0.0.1:0"},
            "control": {"socket": str(self.socket)},
        }
        self.configure()
        self._daemons: list[Daemon] = []

    def configure(self, **sections: dict[str, Any]) -> None:
        """Write the configuration again; these settings replace or extend the previous ones."""
        for name, values in sections.items():
            self.settings.setdefault(name, {}).update(values)
        lines: list[str] = []
        for name, values in self.settings.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.encode(value).decode()}" for key, value in values.items()]
        self.config.write_text("\n".join(lines))

    def syncd(
        self, *arguments: str, config: bool = True, environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, without a terminal."""
        return subprocess.run(
            self.command(*arguments, config=config),
            cwd=self.folder,
            env=self.environ | (environ or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def command(self, *arguments: str, config: bool = True) -> list[str]:
        """Return a command line."""
        named = ["--config", str(self.config)] if config else []
        return [sys.executable, "-m", "syncd", *arguments, *named]

    @property
    def unmeasured(self) -> dict[str, str]:
        """The environment for a process that may not write where coverage keeps its data."""
        return unmeasured(self.environ)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of the tests without the variables that influence syncd."""
        foreign = ("SYNCD_", "LISTEN_", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "WATCHDOG_")
        return {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(foreign) and name != "NO_COLOR"
        }

    def serve(self, *, filled: bool = True, environ: dict[str, str] | None = None) -> Daemon:
        """Start a daemon; returns once it is ready, or (`filled`) has read the whole catalogue."""
        daemon = Daemon(self, environ or {})
        self._daemons.append(daemon)
        daemon.wait_ready()
        if filled:
            self.until(lambda: daemon.status()["sweep"]["last_result"] is not None)
        return daemon

    def close(self) -> None:
        """End the processes that still run."""
        for daemon in self._daemons:
            daemon.kill()

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """Query the mirror as a shop does: with a separate read-only connection."""
        connection = sqlite3.connect(f"{self.mirror.as_uri()}?mode=ro", uri=True, timeout=1)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(sql, values)]
        finally:
            connection.close()

    def variant(self, variant_id: int) -> dict[str, Any]:
        """Return a variant's row of the view."""
        (row,) = self.rows("SELECT * FROM availability WHERE variant_id = ?", variant_id)
        return row

    def is_health_reported(self, health: str) -> bool:
        """Return whether this health has lasted, so that a change of it is a message."""
        return self.rows("SELECT value AS v FROM state WHERE key = 'reported_health'") == [
            {"v": health}
        ]

    @property
    def delivery_count(self) -> int:
        """The number of stored deliveries."""
        return int(self.rows("SELECT count(*) AS n FROM deliveries")[0]["n"])

    @property
    def differences(self) -> int:
        """The differences between mirror and source."""
        return compare(self.mirror, self.catalogue.current_values()).differences

    def until(self, done: Callable[[], object], within_s: float = 60.0) -> None:
        """Return as soon as the condition holds; fail if it does not hold in time.

        A test of a promised time passes that time. The default is long enough for a busy machine.
        """
        deadline = time.monotonic() + within_s
        while not done():
            assert time.monotonic() < deadline, f"not within {within_s:g} s"
            time.sleep(0.02)

    def change(self, variant_id: int, value: str) -> Event:
        """Change the source; return the event, which is later than every read of this second.

        A `Date` header has whole seconds, and an event may be 2 s ahead of Dreamship's clock.
        """
        event = self.catalogue.set_availability(variant_id, value)
        return replace(event, at=event.at + timedelta(seconds=1.3))

    def body(self, event: Event, **forms: Any) -> bytes:
        """Return the documented body of an event."""
        return WebhookSender(self.catalogue, "", (self.key,)).body(event, **forms)

    def bytes_on_disk(self) -> bytes:
        """Return every byte of every file of the mirror."""
        return b"".join(file.read_bytes() for file in sorted(self.mirror.parent.iterdir()))


class Daemon:
    """A real `syncd serve` in a separate process."""

    def __init__(self, site: Site, environ: dict[str, str]) -> None:
        self.site = site
        self.webhook_url = ""
        self.admin_url = ""
        self.log = site.folder / f"serve-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                soon(site.command("serve")),
                cwd=site.folder,
                env=site.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def wait_ready(self) -> None:
        """Return as soon as the daemon reports that it is ready; fail if it ends instead."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return bool(self.logged("ready"))

        self.site.until(is_ready)
        at = {line["listener"]: line["address"] for line in self.logged("listening")}
        self.webhook_url = at["webhook"] + self.logged("ready")[0]["webhook"]
        self.admin_url = at.get("admin", "")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log for one event."""
        return [line for line in self.lines() if line.get("event") == event]

    def lines(self) -> list[dict[str, Any]]:
        """Return every complete line of its log."""
        return [json.decode(line) for line in self.log.read_bytes().split(b"\n")[:-1]]

    def status(self) -> dict[str, Any]:
        """Return its status document."""
        document: dict[str, Any] = to_builtins(request_status(self.site.socket))
        return document

    def post(
        self, body: bytes, *, key: str | None = None, client: httpx.Client | None = None
    ) -> httpx.Response:
        """Post these bytes, signed."""
        headers = {HEADER: sign(body, (key or self.site.key,)), "Content-Type": "application/json"}
        if client is not None:
            return client.post(self.webhook_url, content=body, headers=headers)
        return httpx.post(self.webhook_url, content=body, headers=headers, trust_env=False)

    def deliver(self, event: Event, **forms: Any) -> str:
        """Deliver an event, which must be answered 200; return the outcome."""
        answer = self.post(self.site.body(event, **forms))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["outcome"])

    @contextlib.contextmanager
    def loaded(
        self, variants: list[int], values: tuple[str, ...], numbers: Iterator[int]
    ) -> Iterator[None]:
        """Deliver one change after the other until the block ends, or the daemon does.

        Round all `variants` with one of the `values`, then with the next; `numbers` go on counting.
        """
        over = threading.Event()

        def deliver() -> None:
            with httpx.Client(trust_env=False) as client:
                while not over.is_set():
                    number = next(numbers)
                    value = values[number // len(variants) % len(values)]
                    event = self.site.change(variants[number % len(variants)], value)
                    try:
                        self.post(self.site.body(event), client=client)
                    except httpx.TransportError:
                        return  # it was killed

        thread = threading.Thread(target=deliver)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def deliver_first(self) -> None:
        """Deliver an update that changes nothing, to end the wait for the first delivery."""
        variant = min(self.site.catalogue.variants.values(), key=lambda one: one.variant_id)
        event = self.site.catalogue.set_availability(variant.variant_id, variant.availability)
        self.deliver(event)
        self.site.until(lambda: self.status()["health"] == "ok")

    def memory_mb(self, name: str) -> float:
        """Return `VmRSS`, its memory now, or `VmHWM`, the most that it ever had."""
        with open(f"/proc/{self.process.pid}/status") as file:  # noqa: PTH123 - procfs
            return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon as a service manager does; its exit code must be 0."""
        self.process.send_signal(number)
        assert self.process.wait(20) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()

    def kill(self) -> None:
        """End the daemon as a power failure does."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def opened(folder: Path, *, items: int = 5, variants_per_item: int = 4) -> Iterator[Site]:
    """Give a site with so many items at Dreamship; end its processes afterwards."""
    catalogue = Catalog.generate(items, variants_per_item, seed=1, now=lambda: datetime.now(UTC))
    api = Api(catalogue, (KEY,))
    with (
        serving_in_thread(api) as base_url,
        contextlib.closing(Site(folder, api, base_url)) as site,
    ):
        yield site


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """Share one TLS context among the HTTP clients of the tests.

    Each client reads the certificates of its host, which takes 20 ms, and tests make thousands of
    clients for plain HTTP. syncd and clients with their own certificates pass a context.
    """
    contexts: dict[bool, ssl.SSLContext] = {}

    def create(**options: Any) -> ssl.SSLContext:
        if options["verify"] is not True or options["cert"] is not None:
            return httpx.create_ssl_context(**options)
        trust_env: bool = options["trust_env"]
        if trust_env not in contexts:
            contexts[trust_env] = httpx.create_ssl_context(**options)
        return contexts[trust_env]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", create)
        yield


@pytest.fixture(autouse=True)
def forgotten_secrets() -> Iterator[None]:
    """Forget the keys of a command in this process, so that the next one does not mask them."""
    yield
    secrets.clear()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Give an empty mirror, `availability.db` in the folder of the test, open to be written."""
    one = Database(tmp_path / "availability.db")
    one.open()
    with contextlib.closing(one):
        yield one


@pytest.fixture(scope="module")
def memory() -> Iterator[sqlite3.Connection]:
    """Give the tables of a mirror in memory to a module; a test that fills them empties them."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        yield connection


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site to one test only; nothing runs in it yet."""
    with opened(tmp_path) as one:
        yield one


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Site]:
    """Give a site without a server for Dreamship, for commands that must not call Dreamship."""
    catalogue = Catalog.generate(5, 4, seed=1, now=lambda: datetime.now(UTC))
    with contextlib.closing(Site(tmp_path, Api(catalogue, (KEY,)), "http://127.0.0.1:9/v1")) as one:
        yield one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give a daemon with a filled mirror to every test of a module that leaves it running.

    SIGTERM ends it, and its exit code must be 0.
    """
    with opened(tmp_path_factory.mktemp("shared"), items=12) as one:
        daemon = one.serve()
        yield daemon
        daemon.stop()


@pytest.fixture
def harmless(shared: Daemon) -> Iterator[None]:
    """Check that a test costs the daemon no memory, and that the daemon still takes deliveries."""
    before_mb = shared.memory_mb("VmHWM")
    yield
    assert shared.post(order()).json() == {"outcome": "ignored"}
    assert shared.memory_mb("VmHWM") - before_mb < 30
    assert not [line for line in shared.lines() if line["level"] == "error"]


@pytest.fixture(scope="session")
def open_site() -> Callable[..., contextlib.AbstractContextManager[Site]]:
    """Give the function that makes a site, for tests with other sizes or other folders."""
    return opened


@pytest.fixture
def target(server: Server) -> Iterator[TargetDatabase]:
    """Give a database of the module's `server` to one test."""
    one = server.database()
    yield one
    one.drop()


@pytest.fixture
def proxy(server: Server) -> Iterator[CuttingProxy]:
    """Give a proxy in front of the module's `server`."""
    from targets import CuttingProxy  # noqa: PLC0415 - SQLAlchemy, for few tests

    with contextlib.closing(CuttingProxy(server.port)) as one:
        yield one
