"""The service manager's side, over real sockets and in a real process; and the unit itself."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from syncd.config.settings import Webhook
from syncd.http_server import GRACEFUL_S, LONGEST_DRAIN_S
from syncd.store.connection import BUSY_TIMEOUT_S
from syncd.systemd import notify, take_sockets, watchdog_s
from syncd.web import BODY_TIMEOUT_S

if TYPE_CHECKING:
    from conftest import Site

UNITS = Path(__file__).parent.parent / "systemd"


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    """Give the socket that a service manager listens on for notes."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.bind(str(tmp_path / "notify"))
    one.settimeout(10)
    return one


def test_a_note_is_one_datagram(manager: socket.socket) -> None:
    """One line a variable."""
    with manager:
        notify({"NOTIFY_SOCKET": manager.getsockname()}, "READY=1", "STATUS=all is well")
        assert manager.recv(1000) == b"READY=1\nSTATUS=all is well"


def test_a_note_reaches_an_abstract_socket() -> None:
    """`@name`, as some managers do it."""
    name = f"syncd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(10)
        notify({"NOTIFY_SOCKET": "@" + name}, "WATCHDOG=1")
        assert manager.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_a_note_is_nothing(environ: dict[str, str]) -> None:
    """Started by hand, or the manager went away."""
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
def test_the_watchdog_is_fed_twice_as_often_as_needed(
    environ: dict[str, str], seconds: float | None
) -> None:
    """Only when it watches this process."""
    assert watchdog_s(environ) == seconds


def test_sockets_of_another_process_are_not_taken() -> None:
    """A child inherits the variables of its parent; they are removed all the same."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "webhook", "HOME": "/"}
    assert take_sockets(environ) == {}
    assert environ == {"HOME": "/"}


def test_sockets_handed_over_have_their_names() -> None:
    """By `FileDescriptorName=`; one without a known name is the webhook's; none is inherited."""
    script = """
import os, socket
from syncd.config.settings import Webhook
from syncd.http_server import GRACEFUL_S, LONGEST_DRAIN_S
from syncd.store.connection import BUSY_TIMEOUT_S
from syncd.systemd import take_sockets
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


def test_the_daemon_serves_a_socket_it_was_handed(site: Site, manager: socket.socket) -> None:
    """It wins over `webhook.listen`; the manager hears of every step."""
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
            heard = manager.recv(1000)
            while b"READY=1" not in heard:
                heard = manager.recv(1000)
            assert b"STATUS=webhooks unknown" in heard
            url = f"http://127.0.0.1:{port}/healthz"
            assert httpx.get(url, trust_env=False).status_code == 200
            site.until(lambda: site.differences == 0)
            process.terminate()
            while heard != b"STOPPING=1":
                heard = manager.recv(1000)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


def test_the_units_are_some_that_systemd_understands(tmp_path: Path) -> None:
    """No unknown setting, no value out of range, and the command line that the README installs."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    text = (UNITS / "syncd.service").read_text()
    command = "/opt/syncd/bin/syncd"
    assert f"ExecStart={command} serve --config /etc/syncd/config.toml\n" in text
    copy = tmp_path / "syncd.service"
    copy.write_text(text.replace(command, "/bin/true"))
    socket_unit = Path(shutil.copy(UNITS / "syncd.socket", tmp_path))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy), str(socket_unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    about_ours = [line for line in done.stderr.splitlines() if "syncd" in line]
    assert about_ours == []


def test_an_end_in_the_middle_of_a_sign_of_life_is_quiet(idle: Site) -> None:
    """The daemon ends while it beats, which it does nearly all the time here: no traceback."""
    for _ in range(3):
        daemon = idle.serve(filled=False, environ={"WATCHDOG_USEC": "20000"})
        time.sleep(0.1)
        daemon.stop()


def setting(unit: str, name: str) -> str:
    """Return what a unit file sets."""
    (value,) = re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    return str(value)


def test_an_end_is_over_before_the_manager_loses_patience() -> None:
    """The longest request, servers, a batch that waits for a lock, and the log into the file."""
    longest_s = LONGEST_DRAIN_S + GRACEFUL_S + 3 * BUSY_TIMEOUT_S
    assert longest_s < int(setting("syncd.service", "TimeoutStopSec"))
    # A request has as long as all of its parts may take.
    assert LONGEST_DRAIN_S > BODY_TIMEOUT_S + BUSY_TIMEOUT_S


def test_the_socket_is_the_one_the_daemon_listens_on_by_itself() -> None:
    """With the unit or without it, the web server in front finds the same address."""
    listen = Webhook().listen
    assert setting("syncd.socket", "ListenStream") == f"{listen.host}:{listen.port}"
    assert setting("syncd.socket", "FileDescriptorName") == "webhook"
    # Enabling the service alone works, and does not bring the socket along.
    assert "syncd.socket" not in (UNITS / "syncd.service").read_text()
