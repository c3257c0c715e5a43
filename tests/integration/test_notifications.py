"""Notifications: a command or a URL, retried, and never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.daemon.notifier import ATTEMPTS, Notifier

MESSAGE = {"event": "webhooks", "before": "healthy", "now": "silent"}


class Ear(HTTPServer):
    """Stores each posted message; fails the first `failures` times."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[Any] = []
        self.failures = 0


class _Handler(BaseHTTPRequestHandler):
    server: Ear

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))
        self.server.failures -= 1
        self.send_response(200 if self.server.failures < 0 else 500)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def ear() -> Iterator[Ear]:
    server = Ear()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def report(*, command: list[str] | None = None, url: str = "", limit_s: float = 5) -> list[float]:
    """Send the message until the last attempt; return the waits between attempts."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def run() -> None:
        notifier = Notifier(sleep=sleep, limit_s=limit_s)
        notifier.send(MESSAGE, command=command or [], url=url)
        await notifier.settled()

    asyncio.run(run())
    return slept


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "tell-me"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return [str(path), "an argument; with $(nothing) a shell would run"]


def test_a_command_gets_the_message_on_stdin(tmp_path: Path) -> None:
    """With its arguments unchanged, without a shell."""
    command = script(tmp_path, f'cat > {tmp_path}/heard; echo "$1" > {tmp_path}/argument')
    assert report(command=command) == []
    assert json.loads((tmp_path / "heard").read_text()) == MESSAGE
    assert (tmp_path / "argument").read_text().strip() == command[1]


def test_a_failing_command_is_retried_with_back_off(tmp_path: Path) -> None:
    """Until it succeeds."""
    counter = tmp_path / "n"
    command = script(tmp_path, f"echo x >> {counter}; test $(wc -l < {counter}) -ge 3")
    slept = report(command=command)
    assert len(slept) == 2
    assert slept[1] > slept[0]


@pytest.mark.parametrize("what", ["fails", "does not exist"])
def test_a_notification_is_given_up_after_some_time(tmp_path: Path, what: str) -> None:
    """With a line in the log."""
    command = script(tmp_path, "exit 7") if what == "fails" else [str(tmp_path / "nothing")]
    with capture_logs() as logs:
        assert len(report(command=command)) == ATTEMPTS - 1
    assert logs[-1]["event"] == "a notification was given up"


def test_a_hanging_command_is_killed(tmp_path: Path) -> None:
    """After its time limit."""
    command = script(tmp_path, f"echo $$ >> {tmp_path}/pids; exec sleep 60")
    began = time.monotonic()
    report(command=command, limit_s=0.1)
    assert time.monotonic() - began < 10
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def test_children_of_a_hanging_command_are_killed(tmp_path: Path) -> None:
    """Also a child that ignores SIGTERM; each try leaves no process."""
    text = f"trap '' TERM\nsleep 60 & echo $! >> {tmp_path}/pids\n(sleep 60) & wait"
    report(command=script(tmp_path, text), limit_s=0.2)
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == ATTEMPTS
    deadline_s = time.monotonic() + 5
    # The init process of this host may take a moment to reap the process.
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def is_alive(pid: str) -> bool:
    """Return whether a process runs; a zombie does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_url_is_retried_until_it_succeeds(ear: Ear) -> None:
    """A 500 is a failure."""
    ear.failures = 2
    assert len(report(url=f"http://127.0.0.1:{ear.server_port}/hook/secret-token")) == 2
    assert ear.received == [MESSAGE] * 3


def test_the_url_is_not_logged() -> None:
    """It often contains a secret."""
    with capture_logs() as logs:
        report(url="http://127.0.0.1:1/hook/secret-token")
    assert len(logs) == ATTEMPTS + 1
    assert "secret-token" not in str(logs)


def test_notifying_and_closing_do_not_wait(tmp_path: Path) -> None:
    """The daemon continues, and ends when it must."""

    async def run() -> float:
        began = time.monotonic()
        notifier = Notifier(sleep=asyncio.sleep)
        notifier.send(MESSAGE, command=script(tmp_path, "exec sleep 60"), url="")
        await asyncio.sleep(0.05)
        await notifier.close()
        return time.monotonic() - began

    assert asyncio.run(run()) < 5


def test_an_endless_answer_is_not_read() -> None:
    """Only its status code counts."""

    def talk(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"x" * 65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        began_s = time.monotonic()
        assert report(url=f"http://127.0.0.1:{listener.getsockname()[1]}/") == []
        assert time.monotonic() - began_s < 5
        thread.join()


def test_a_redirect_is_not_followed(ear: Ear) -> None:
    """The message goes to the configured URL only."""

    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(307)
            self.send_header("Location", f"http://127.0.0.1:{ear.server_port}/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        with capture_logs() as logs:
            report(url=f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
        thread.join()
    assert logs[0]["error"] == "notify.url answered 307"
    assert ear.received == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SSL_CERT_FILE", "/nowhere"), ("ALL_PROXY", "socks4://u:hush@p"), ("HTTPS_PROXY", "p:x")],
)
def test_a_fault_of_the_environment_is_logged(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """With its variable; every lost message has a line in the log."""
    for name in ("NO_PROXY", "no_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with capture_logs() as logged:
        report(url="https://hooks.example.com/hush")
    assert [line["event"] for line in logged].count("a notification failed") == ATTEMPTS
    assert logged[-1]["event"] == "a notification was given up"
    assert logged[0]["error"].startswith(f"notify.url cannot be reached: {variable}: ")
    assert "hush" not in str(logged)


def test_an_unexpected_fault_is_retried_and_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as no thread for a name lookup."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("syncd.http_client.async_client", refuse)
    with capture_logs() as logged:
        report(url="https://hooks.example.com/hush")
    assert logged[0]["error"] == "notify.url failed: RuntimeError"
    assert logged[-1]["event"] == "a notification was given up"
