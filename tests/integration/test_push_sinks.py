"""The receivers of pushes one by one: bounded time, bounded answers, TLS, no secret in an error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pushing import SECRET, Receiver, receiving
from targets import free_port

from syncd.config import SigningSecret
from syncd.core.pushes import Cursor, Step
from syncd.push.sinks import CommandSink, Gone, NotTaken, UrlSink

STEP = Step(
    Cursor(name="shop", mirror="m", only="all", listings=0, run=1, seq=1, pending=2),
    [{"seq": 2, "variant_id": 7, "availability": "x", "sellable": 0}],
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def send(url: str, *, times: int = 1, limit_s: float = 10) -> str:
    """Send a batch some times; return the reason why one was not taken, or nothing."""

    async def run() -> None:
        sink = UrlSink(url, SigningSecret(SECRET), lambda: datetime.now(UTC), limit_s=limit_s)
        try:
            for _ in range(times):
                await sink.send(STEP)
        finally:
            await sink.close()

    try:
        asyncio.run(run())
    except NotTaken as error:
        return str(error)
    return ""


def run_command(*command: str, limit_s: float = 10) -> str:
    try:
        asyncio.run(CommandSink(command, limit_s=limit_s).send(STEP))
    except NotTaken as error:
        return str(error)
    return ""


@contextlib.contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Give the URL of a server that talks like this to one connection."""

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/token"
        thread.join()


def test_several_batches_use_one_connection(receiver: Receiver) -> None:
    """A new connection for each would take longer than the batch."""
    assert send(receiver.url, times=20) == ""
    assert len(receiver.taken) == 20
    assert receiver.accepted == 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_receiver_has_a_time_limit(answer: bytes) -> None:
    """Also one that never ends its headers."""

    def stay(connection: socket.socket) -> None:
        connection.sendall(answer)
        time.sleep(1)

    with talking(stay) as url:
        began_s = time.monotonic()
        assert send(url, limit_s=0.3) == "did not answer within 0.3 s"
        assert time.monotonic() - began_s < 5


def test_the_status_alone_decides() -> None:
    """An endless body is not read, and a broken one is no failure."""

    def flood(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    def stop(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")

    for talk in (flood, stop):
        with talking(talk) as url:
            assert send(url) == ""


def test_a_connection_that_breaks_is_a_failure() -> None:
    """The error has no address in it."""

    def cut(connection: socket.socket) -> None:
        connection.recv(65536)

    with talking(cut) as url:
        error = send(url)
    assert error.startswith("could not be reached: ")
    assert "token" not in error


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:{port}/token", "Connection refused"),
        ("https://token.invalid/token", "the name of the host is not known"),
    ],
)
def test_the_cause_of_a_failure_is_named(
    url: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words, and without the address."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert send(url.format(port=free_port())) == f"could not be reached: {error}"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_takes_a_batch(receiver: Receiver, status: int) -> None:
    """204 too, which has no body."""
    receiver.answer = lambda _: status
    assert send(receiver.url) == ""


def test_410_is_a_separate_error(receiver: Receiver) -> None:
    """The follower stops at it."""
    receiver.answer = lambda _: 410
    sink = UrlSink(receiver.url, SigningSecret(SECRET), lambda: datetime.now(UTC))

    async def run() -> None:
        try:
            await sink.send(STEP)
        finally:
            await sink.close()

    with pytest.raises(Gone):
        asyncio.run(run())


def test_a_certificate_that_nobody_trusts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless SSL_CERT_FILE names it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*made, "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    with receiving() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "SSL_CERT_FILE"):
            monkeypatch.delenv(name, raising=False)
        error = "the certificate is not trusted, or it is for another name"
        assert send(url) == f"could not be reached: {error}"
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert send(url) == ""
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
        assert send(url).startswith("cannot be reached: SSL_CERT_FILE: ")


def test_a_proxy_of_the_environment_is_not_used_for_this_host(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body without TLS never leaves the host."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert send(receiver.url) == ""


def test_a_command_has_a_time_limit(tmp_path: Path) -> None:
    """Then it ends with its children, and its output does not matter."""
    script = f"yes & echo $! > {tmp_path}/pid; wait"
    began_s = time.monotonic()
    assert run_command("sh", "-c", script, limit_s=0.5) == "the command did not end within 0.5 s"
    assert time.monotonic() - began_s < 5
    pid = int((tmp_path / "pid").read_text())
    deadline_s = time.monotonic() + 5
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_command_may_leave_its_input_unread() -> None:
    """Its exit code decides."""
    assert run_command("true") == ""
    assert run_command("false") == "the command ended 1"
    assert run_command("sh", "-c", "kill -9 $$") == "the command ended -9"
    assert run_command("/nowhere/token") == "the command cannot be run: No such file or directory"
    assert run_command(os.devnull) == "the command cannot be run: Permission denied"
