"""systemd: notifications, handed-over sockets, the watchdog, and the unit files."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from documents import ROOT, section
from systemd.saboteur import PARTS

from syncd.control.client import request_status
from syncd.daemon.systemd import notify, notify_reloading, take_sockets, watchdog_s

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Site

UNITS = ROOT / "systemd"
SECTION = "What systemd does for it"


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    """Give the socket on which a service manager receives notifications."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.bind(str(tmp_path / "notify"))
    one.settimeout(10)
    return one


def test_a_notification_is_one_datagram(manager: socket.socket) -> None:
    """One line a variable."""
    with manager:
        notify({"NOTIFY_SOCKET": manager.getsockname()}, "READY=1", "STATUS=all is well")
        assert manager.recv(1000) == b"READY=1\nSTATUS=all is well"


def test_a_notification_reaches_an_abstract_socket() -> None:
    """Its name begins with `@`."""
    name = f"syncd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(10)
        notify({"NOTIFY_SOCKET": "@" + name}, "WATCHDOG=1")
        assert manager.recv(1000) == b"WATCHDOG=1"


def test_a_reload_notification_has_the_monotonic_time(manager: socket.socket) -> None:
    """On the clock that systemd compares it with."""
    with manager:
        before = time.monotonic_ns() // 1000
        notify_reloading({"NOTIFY_SOCKET": manager.getsockname()})
        note = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", manager.recv(1000))
        assert note is not None
        assert before <= int(note[1]) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_a_notification_does_nothing(environ: dict[str, str]) -> None:
    """The daemon was started by hand, or the manager is gone."""
    notify(environ, "READY=1")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "120000000"}, 60.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_per_interval(
    environ: dict[str, str], seconds: float | None
) -> None:
    """Only if it watches this process."""
    assert watchdog_s(environ) == seconds


def test_sockets_for_another_process_are_ignored() -> None:
    """A child inherits the variables of its parent; they are removed all the same."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "webhook", "HOME": "/"}
    assert take_sockets(environ) == {}
    assert environ == {"HOME": "/"}


def test_handed_over_sockets_are_found_by_name() -> None:
    """By `FileDescriptorName=`; an unknown name means the webhook; none is inherited."""
    script = """
import os, socket
from syncd.config.settings import Webhook
from syncd.http_server.server import GRACEFUL_S, LONGEST_DRAIN_S
from syncd.store.connection import BUSY_TIMEOUT_S
from syncd.daemon.systemd import take_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
taken = take_sockets(os.environ)
print({name: (one.getsockname()[1], one.get_inheritable()) for name, one in taken.items()})
print([name for name in os.environ if name.startswith("LISTEN_")])
"""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [one.getsockname()[1], two.getsockname()[1]]
        # The child finds them at 3 and 4, as a service manager hands them over.
        done = subprocess.run(
            [
                "bash",
                "-c",
                'a=$1 b=$2; shift 2; exec 3<&"$a" 4<&"$b"; exec "$@"',
                "bash",
                str(one.fileno()),
                str(two.fileno()),
                sys.executable,
                "-c",
                script,
            ],
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "connection:admin"},
            pass_fds=[one.fileno(), two.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str({"webhook": (ports[0], False), "admin": (ports[1], False)}),
        "[]",
    ]


def test_the_daemon_serves_a_handed_over_socket(site: Site, manager: socket.socket) -> None:
    """It wins over `webhook.listen`; the manager gets every notification."""
    with manager, socket.create_server(("127.0.0.1", 0)) as handed:
        port = handed.getsockname()[1]
        script = 'exec 3<&"$0"; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        process = subprocess.Popen(
            ["bash", "-c", script, str(handed.fileno()), *site.command("serve")],
            env=site.environ | {"NOTIFY_SOCKET": manager.getsockname()},
            pass_fds=[handed.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            received = manager.recv(1000)
            while b"READY=1" not in received:
                received = manager.recv(1000)
            assert b"STATUS=webhooks unknown" in received
            url = f"http://127.0.0.1:{port}/healthz"
            assert httpx.get(url, trust_env=False).status_code == 200
            site.until(lambda: site.differences == 0)
            process.terminate()
            while received != b"STOPPING=1":
                received = manager.recv(1000)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


class Watched:
    """A manager whose watchdog wants a sign of life every second, and its daemon's process."""

    def __init__(self, manager: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.manager = manager
        self.process = process
        self.receive(b"READY=1")
        self.receive(b"WATCHDOG=1")

    def receive(self, note: bytes, within_s: float = 10.0) -> bool:
        """Return whether a notification arrives in time."""
        deadline_s = time.monotonic() + within_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self.manager.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                if self.manager.recv(1000).startswith(note):
                    return True
        return False


@pytest.fixture
def watched(site: Site, manager: socket.socket, tmp_path: Path) -> Iterator[Watched]:
    """Give a daemon with parts that can be blocked, and the manager that watches it."""
    shutil.copy(ROOT / "tests" / "systemd" / "saboteur.py", tmp_path / "sitecustomize.py")
    process = subprocess.Popen(
        site.command("serve"),
        env=site.environ
        | {
            "NOTIFY_SOCKET": manager.getsockname(),
            "WATCHDOG_USEC": "1000000",
            "PYTHONPATH": str(tmp_path),
            "SABOTEUR": str(tmp_path / "sabotage"),
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        with manager:
            yield Watched(manager, process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("part", PARTS)
def test_a_hanging_part_stops_the_watchdog_notification(
    watched: Watched, tmp_path: Path, part: str
) -> None:
    """The loop, the scheduler and the write thread."""
    assert watched.receive(b"WATCHDOG=1")
    (tmp_path / "part").write_text(part)
    (tmp_path / "part").rename(tmp_path / "sabotage")
    # A notification that was on its way may still arrive.
    watched.receive(b"WATCHDOG=1", within_s=1)
    assert not watched.receive(b"WATCHDOG=1", within_s=2)


def test_an_unwritable_mirror_does_not_stop_the_watchdog_notification(
    watched: Watched, site: Site
) -> None:
    """A restart would not help against a full disk."""
    site.until(lambda: site.differences == 0)
    resource.prlimit(watched.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    site.until(lambda: request_status(site.socket).health == "failing")
    assert all(watched.receive(b"WATCHDOG=1", within_s=2) for _ in range(3))
    resource.prlimit(watched.process.pid, resource.RLIMIT_FSIZE, (-1, -1))
    site.until(lambda: request_status(site.socket).health != "failing")


@pytest.fixture
def analyze() -> Callable[..., str]:
    """Ask systemd about unit files."""
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.skip("systemd-analyze is not installed")

    def query(*arguments: str) -> str:
        done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return query


def test_systemd_analyze_accepts_the_units(analyze: Callable[..., str], tmp_path: Path) -> None:
    """No unknown setting, no invalid value, and the documented command line."""
    command = "/opt/syncd/bin/syncd"
    text = (UNITS / "syncd.service").read_text()
    assert f"ExecStart={command} serve --config /etc/syncd/config.toml\n" in text
    names = ("syncd.service", "syncd.socket", "syncd@.service", "syncd@.socket")
    for name in names:
        copied = tmp_path / name.replace("@", "@mugs")
        copied.write_text((UNITS / name).read_text().replace(command, "/bin/true"))
    output = analyze("verify", "--man=no", *map(str, sorted(tmp_path.iterdir())))
    assert [line for line in output.splitlines() if "syncd" in line] == []


@pytest.mark.parametrize("name", ["syncd.service", "syncd@.service"])
def test_the_unit_is_sandboxed_as_documented(analyze: Callable[..., str], name: str) -> None:
    """By the score of `systemd-analyze security`."""
    output = analyze("security", "--offline=true", "--no-pager", str(UNITS / name))
    (exposure,) = re.findall(r"exposure level for \S+: ([\d.]+)", output)
    assert float(exposure) <= 1.3
    assert f"(`systemd-analyze security` says {exposure})" in section(SECTION)


def test_a_stop_during_a_heartbeat_logs_no_traceback(idle: Site) -> None:
    """The heartbeat is so frequent here that every stop meets one."""
    for _ in range(3):
        daemon = idle.serve(filled=False, environ={"WATCHDOG_USEC": "20000"})
        time.sleep(0.1)
        daemon.stop()


@pytest.mark.parametrize(
    ("failure", "is_told"), [(asyncio.CancelledError(), False), (ValueError("odd"), True)]
)
def test_a_job_cancelled_by_the_stop_is_not_logged_as_an_error(
    failure: BaseException, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """APScheduler would; every other fault of a job is logged."""
    importlib.import_module("syncd.daemon.scheduler")
    logging.getLogger("apscheduler.executors.default").error("Error running job", exc_info=failure)
    assert bool(caplog.records) is is_told
