"""Requests that tests send as bytes to a daemon, and the answers that come back."""

from __future__ import annotations

import re
import socket
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
from msgspec import json

from syncd.core.signature import HEADER, sign

if TYPE_CHECKING:
    from conftest import Daemon

MB = 1024 * 1024


def dial(daemon: Daemon, timeout_s: float = 20.0) -> socket.socket:
    """Return a connection to the webhook."""
    url = httpx.URL(daemon.webhook_url)
    return socket.create_connection((url.host, url.port or 0), timeout=timeout_s)


def head(daemon: Daemon, *lines: str, version: str = "1.1") -> bytes:
    """Return the head of a request to the webhook, without a signature."""
    path = httpx.URL(daemon.webhook_url).path
    return "\r\n".join([f"POST {path} HTTP/{version}", "Host: shop", *lines, "", ""]).encode()


def request(daemon: Daemon, body: bytes, *lines: str, version: str = "1.1") -> bytes:
    """Return a whole signed delivery."""
    signature = f"{HEADER}: {sign(body, (daemon.site.key,))}"
    length = f"Content-Length: {len(body)}"
    return head(daemon, signature, length, *lines, version=version) + body


def order() -> bytes:
    """Return a body that is authentic, new, and answered `ignored`."""
    return json.encode({"object": "order", "event": {"action": "x", "uuid": str(uuid.uuid4())}})


_HEAD = re.compile(rb"HTTP/1.1 (\d{3}) .*?content-length: (\d+).*?\r\n\r\n", re.DOTALL)


def answers(connection: socket.socket, count: int = 1) -> list[bytes]:
    """Read so many whole answers; return their codes, fewer if the other side is done before."""
    codes: list[bytes] = []
    output = b""
    with suppress(ConnectionResetError):
        while len(codes) < count:
            whole = _HEAD.match(output)
            if whole is not None and len(output) >= (end := whole.end() + int(whole[2])):
                codes.append(whole[1])
                output = output[end:]
            elif received := connection.recv(MB):
                output += received
            else:
                break
    return codes


def exchange(daemon: Daemon, *parts: bytes, count: int = 1) -> list[bytes]:
    """Send these bytes as far as they are taken; return the codes of the answers."""
    with dial(daemon) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
        return answers(connection, count)


def refused(daemon: Daemon, listener: str = "webhook") -> dict[str, int]:
    """Return the number of refused requests of a listener by code, from the metrics."""
    page = httpx.get(f"{daemon.admin_url}/metrics", trust_env=False).text
    pattern = rf'^syncd_http_refused_total{{code="(\d+)",listener="{listener}"}} (\S+)$'
    return {code: int(float(count)) for code, count in re.findall(pattern, page, re.MULTILINE)}
