"""nginx and Caddy as documented, in front of a daemon; and set up wrongly.

TLS is real: the clients trust one temporary certificate, and no other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from documents import blocks
from load.station import free_port
from msgspec import Struct

from syncd.core.signature import HEADER, sign

SECTION = "Behind your web server"
PATH = "/webhooks/dreamship"
# The documented sites have these values; a test replaces them.
_LISTENER, _SOCKET = "127.0.0.1:8787", "unix:/run/syncd-mugs.sock"
_HOST = "hooks.example.com"
_CERTIFICATE = f"/etc/letsencrypt/live/{_HOST}/fullchain.pem"
_KEY = f"/etc/letsencrypt/live/{_HOST}/privkey.pem"
# Debian installs nginx in a folder that is not in an ordinary user's PATH.
_PATH = f"{os.environ['PATH']}:/usr/sbin"
_START_S = 15.0

# The parts of Debian's /etc/nginx/nginx.conf around a site; all files are in one folder.
NGINX = """
daemon off;
master_process off;
error_log stderr;
pid {folder}/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""
# Caddy requests no certificate from an authority, and does not use port 80.
_CADDY = """\
{
	admin off
	auto_https disable_redirects
}
"""


class Front(Struct, frozen=True):
    """A web server at work on a port of loopback, and the certificate that vouches for it."""

    port: int
    certificate: Path

    @property
    def url(self) -> str:
        """The webhook URL for the subscription at Dreamship."""
        return f"https://127.0.0.1:{self.port}{PATH}"

    def client(self, source: str = "127.0.0.1") -> httpx.Client:
        """Return a client that trusts it and comes from this address of loopback."""
        trust = ssl.create_default_context(cafile=self.certificate)
        transport = httpx.HTTPTransport(verify=trust, local_address=source)
        return httpx.Client(transport=transport, timeout=30)

    def post(self, body: bytes, key: str) -> httpx.Response:
        """Post these bytes, signed."""
        headers = {HEADER: sign(body, (key,)), "Content-Type": "application/json"}
        with self.client() as client:
            return client.post(self.url, content=body, headers=headers)


Start = Callable[[Path, str], AbstractContextManager[Front]]


@contextlib.contextmanager
def nginx(folder: Path, to: str, *changes: tuple[str, str]) -> Iterator[Front]:
    """Run the documented site in front of `to`; each of `changes` replaces what stands there."""
    program = find_program("nginx")
    certificate, key = _certificate(folder)
    port = free_port()
    (site,) = blocks(SECTION, "nginx")
    for before, after in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        (_CERTIFICATE, str(certificate)),
        (_KEY, str(key)),
        (f"http://{_LISTENER}", f"http://{to}"),
        *changes,
    ):
        assert site.count(before) == 1, before
        site = site.replace(before, after)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, site=site))
    with running(folder, port, program, "-e", "stderr", "-c", str(config)):
        yield Front(port, certificate)


@contextlib.contextmanager
def caddy(folder: Path, to: str) -> Iterator[Front]:
    """Run the documented site in front of `to`."""
    program = find_program("caddy")
    certificate, key = _certificate(folder)
    port = free_port()
    (site,) = blocks(SECTION, "caddy")
    for before, after in (
        (f"{_HOST} {{", f"https://127.0.0.1:{port} {{\n\ttls {certificate} {key}"),
        (_LISTENER, to),
    ):
        assert site.count(before) == 1, before
        site = site.replace(before, after)
    config = folder / "Caddyfile"
    config.write_text(_CADDY + site)
    with running(folder, port, program, "run", "--adapter", "caddyfile", "--config", str(config)):
        yield Front(port, certificate)


def validated(folder: Path) -> subprocess.CompletedProcess[str]:
    """Have Caddy validate the documented site as it stands."""
    program = find_program("caddy")
    (site,) = blocks(SECTION, "caddy")
    config = folder / "Caddyfile"
    config.write_text(site)
    return subprocess.run(
        [program, "validate", "--adapter", "caddyfile", "--config", str(config)],
        env=_environ(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def find_program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian's package {name})")
    return found


def _environ(folder: Path) -> dict[str, str]:
    """Return an environment in which a program writes its own files into the folder."""
    own = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(folder))
    return {"PATH": _PATH, **own}


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    about = ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext"]
    names = ["subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *about, *names], check=True, capture_output=True, timeout=30)
    return certificate, key


@contextlib.contextmanager
def running(folder: Path, port: int, *command: str) -> Iterator[None]:
    """Run a server until this is over; begins once it answers."""
    log = folder / "front.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environ(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    try:
        deadline_s = time.monotonic() + _START_S
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True
