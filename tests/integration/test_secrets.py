"""No secret leaves the process: canaries as keys and tokens, sent through every path.

A canary may appear in the configuration, at Dreamship and at its own URL, and nowhere else.
"""

from __future__ import annotations

import itertools
import os
import signal
import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from msgspec import json

from syncd.control import messages
from syncd.control.client import request_reconcile
from syncd.core.signature import HEADER, sign

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

# In each of them, so that a part of one is found as well.
STEM = "canary7"
READS = f"{STEM}/reads+0123456789abcdef"
VERIFIES = f"{STEM}_verifies_0123456789abcdef"
LATER = f"{STEM}_later_0123456789abcdef"
TOKEN = f"{STEM}_token_0123456789abcdef"
ARGUMENT = f"{STEM}_argument_0123456789abcdef"
FAST = {"WATCHDOG_USEC": "400000"}
NOWHERE = "http://127.0.0.1:9/v1"


class Seen:
    """All output of all programs."""

    def __init__(self) -> None:
        self._shown: list[tuple[str, bytes]] = []

    def add(self, where: str, what: bytes | str) -> None:
        self._shown.append((where, what.encode() if isinstance(what, str) else what))

    def run(self, site: Site, *arguments: str, **environ: str) -> int:
        done = site.syncd(*arguments, environ=environ)
        self.add(f"stdout of {arguments}", done.stdout)
        self.add(f"stderr of {arguments}", done.stderr)
        return done.returncode

    def get(self, url: str, **headers: str) -> None:
        answer = httpx.get(url, headers=headers, trust_env=False)
        self.add(url, answer.content + str(answer.headers.raw).encode())

    def check(self) -> None:
        """Check that the output contains no canary, and no part of one."""
        assert self._shown
        for where, what in self._shown:
            at = what.find(STEM.encode())
            assert at < 0, f"{where}: {what[max(0, at - 200) : at + 200]!r}"


# A Dreamship, or a proxy in front of it, that repeats the request in every part of an answer.


def answer(status: str, body: str, *headers: str, more: int = 0) -> bytes:
    raw = body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(raw) + more}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + raw


def error(status: str, output: str, *headers: str) -> bytes:
    code = int(status[:3])
    document = {
        "error": {"key": output, "status_code": code, "message": f"{'x' * 190} {output} {output}"}
    }
    return answer(status, json.encode(document).decode(), *headers)


def catalogue(output: str, slash: str = "/") -> bytes:
    variant = {"id": 70, "name": output, "availability": output, "color": {"name": output}}
    item = {"id": 7, "name": output, "item_variants": [variant]}
    document = {"paging": {"count": 1, "next": None}, "data": [item]}
    return answer("200 OK", json.encode(document).decode().replace("/", slash))


ECHOES: dict[str, Callable[[str, str], bytes]] = {
    "refused": lambda output, _: error("401 Unauthorized", output),
    "forbidden": lambda output, _: error("403 Forbidden", output, f"WWW-Authenticate: {output}"),
    "throttled": lambda output, _: error("429 Too Many Requests", output, "Retry-After: 0"),
    "broken": lambda output, _: error("500 Internal Server Error", output),
    "a proxy's page": lambda output, _: answer("502 Bad Gateway", f"<h1>{output}</h1>"),
    "redirects": lambda output, trap: answer(
        "302 Found", output, f"Location: {trap}/?key={output[7:]}"
    ),
    "no HTTP": lambda output, _: f"{output} {output}\r\n\r\n".encode(),
    "no headers": lambda output, _: f"HTTP/1.1 200 OK\r\n{output}\r\n\r\n".encode(),
    "no JSON": lambda output, _: answer("200 OK", output),
    "no gzip": lambda output, _: answer("200 OK", output, "Content-Encoding: gzip"),
    "no end": lambda output, _: answer("200 OK", output, more=10),
    "too deep": lambda output, _: answer("200 OK", "[" * 100_000 + output),
    "no ids": lambda output, _: answer(
        "200 OK",
        f'{{"data": [{{"id": "{output}"}}], "paging": {{"count": "{output}", "next": null}}}}',
    ),
    "next elsewhere": lambda output, trap: answer(
        "200 OK", f'{{"data": [], "paging": {{"count": 9, "next": "{trap}/?{output}"}}}}'
    ),
    "catalogue": lambda output, _: catalogue(output),
    "catalogue by PHP": lambda output, _: catalogue(output, r"\/"),
}


class Echo(socketserver.ThreadingTCPServer):
    """Answers in the way that `how` names, and counts."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.how = "refused"
        self.requested = 0
        self.trap = NOWHERE

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(socketserver.StreamRequestHandler):
    server: Echo

    def handle(self) -> None:
        output = ""
        while (line := self.rfile.readline().decode().strip()) != "":
            if line.lower().startswith("authorization:"):
                output = line.partition(":")[2].strip()
        self.wfile.write(ECHOES[self.server.how](output, self.server.trap))
        self.server.requested += 1


@contextmanager
def echoing() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def have_it_asked(daemon: Daemon, source: Echo) -> None:
    """Make the daemon call its source at once, also after refused or failed calls."""
    before = source.requested
    output = request_reconcile(daemon.site.socket, messages.ReconcileRequest())
    next(iter(output), None)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.site.until(lambda: source.requested > before)


def end(daemon: Daemon, found: Seen) -> None:
    daemon.stop()
    found.add("log", daemon.log.read_bytes())
    found.add("mirror", daemon.site.bytes_on_disk())


@pytest.fixture
def output(idle: Site) -> Path:
    """Configure canaries everywhere; notifications are written to a file."""
    output, command = idle.folder / "told", idle.folder / "tell-me"
    command.write_text(f"#!/bin/sh\n(cat; echo; env) >> {output}\nexit 3\n")
    command.chmod(0o755)
    keys = idle.folder / "keys"
    keys.write_text(f"{READS}\n{VERIFIES}\n")
    idle.configure(
        dreamship={"api_keys": [], "api_key_file": "keys", "timeout_seconds": 2},
        notify={
            "command": [str(command), ARGUMENT],
            "url": f"http://{TOKEN}:{TOKEN}@127.0.0.1:9/{TOKEN}?token={TOKEN}",
        },
        webhook={"public_url": f"http://{TOKEN}:{TOKEN}@127.0.0.1:9/hook?token={TOKEN}"},
        log={"level": "debug"},
    )
    return output


COMMANDS = (
    ("status",),
    ("availability", "1", "70"),
    ("explain", "70"),
    ("changes",),
    ("deliveries",),
    ("deliveries", "--outcome", "quarantined"),
    ("check-config",),
    ("doctor",),
    ("replay", "--quarantined"),
)


def look_at_everything(
    found: Seen, daemon: Daemon, name: str, ways: Sequence[tuple[str, ...]] = ((), ("--json",))
) -> None:
    """Run every command and every request on a daemon and its mirror, in one of the `ways`."""
    for arguments, way in zip(COMMANDS, itertools.cycle(ways), strict=False):
        found.run(daemon.site, *arguments, *way)
    copy = daemon.site.folder / name
    found.run(daemon.site, "backup", str(copy))
    found.add("backup", copy.read_bytes())
    for path in ("/", "/?q=70", "/status.json", "/metrics", "/nothing"):
        found.get(daemon.admin_url + path)
    found.get(daemon.admin_url, Host=f"{STEM}.example")
    found.add("log", daemon.log.read_bytes())
    found.add("mirror", daemon.site.bytes_on_disk())
    proc = Path("/proc", str(daemon.process.pid))
    found.add("command line", (proc / "cmdline").read_bytes() + (proc / "comm").read_bytes())


def be_a_stranger(found: Seen, daemon: Daemon) -> None:
    """Send canaries in every part of requests that are not authentic."""
    url, body = daemon.webhook_url, json.encode({"object": "item_variant", "id": READS})
    wrong = sign(body, ("wrong",))
    for headers in (
        {},
        {HEADER: READS},
        {HEADER: f"{wrong},{READS}"},
        {HEADER: wrong, "Authorization": f"Bearer {READS}", "X-Forwarded-For": READS},
        {HEADER: wrong, "User-Agent": READS, "Cookie": READS, "Content-Type": READS},
    ):
        for address in (url, f"{url}?key={READS}", f"{url}/{VERIFIES}"):
            for method in ("POST", "PUT", READS.replace("/", "-").upper()):
                answered = httpx.request(
                    method, address, content=body, headers=headers, trust_env=False
                )
                assert answered.status_code in {400, 401, 404, 405}
                found.add(address, answered.content + str(answered.headers.raw).encode())


@pytest.mark.usefixtures("output")
def test_a_key_repeated_by_dreamship_is_masked(idle: Site) -> None:
    """In errors, pages, redirects, invalid HTTP, and the catalogue."""
    found = Seen()
    with echoing() as source, echoing() as elsewhere:
        source.trap = elsewhere.url
        idle.configure(dreamship={"base_url": f"{source.url}/v1"})
        daemon = idle.serve(filled=False, environ=FAST)
        be_a_stranger(found, daemon)
        body = json.encode({"object": "item_variant", "event": {"action": "odd"}})
        for key in (READS, VERIFIES):
            assert daemon.post(body, key=key).json()["outcome"] in {"quarantined", "duplicate"}
        for how in ECHOES:
            source.how = how
            have_it_asked(daemon, source)
            found.run(idle, "doctor")
            found.get(daemon.admin_url)
            found.get(f"{daemon.admin_url}/status.json")
            if how == "catalogue":
                # The mirror has the result, masked.
                idle.until(lambda: idle.rows("SELECT * FROM availability WHERE variant_id = 70"))
        assert "********" in idle.variant(70)["availability"]
        look_at_everything(found, daemon, "backup")
        end(daemon, found)
        source.how = "refused"
        # Without a daemon a command reads by itself.
        for arguments in ((), ("--json",), ("--dry-run",)):
            assert found.run(idle, "reconcile-now", *arguments) == 4
        assert elsewhere.requested == 0
    found.add("mirror", idle.bytes_on_disk())
    found.check()


@pytest.mark.usefixtures("output")
def test_keys_of_every_source_are_masked_after_a_rotation_too(idle: Site) -> None:
    """Environment, credential and file; the old key stays masked after a reload."""
    found, credentials = Seen(), idle.folder / "credentials"
    credentials.mkdir()
    (credentials / "dreamship-api-keys").write_text(f"{READS}\n{LATER}\n")
    for environ in (
        {"SYNCD_DREAMSHIP_API_KEYS": f"{READS},{LATER}"},
        {"CREDENTIALS_DIRECTORY": str(credentials)},
        {},
    ):
        with echoing() as source:
            idle.configure(dreamship={"base_url": f"{source.url}/v1"})
            daemon = idle.serve(filled=False, environ=environ | FAST)
            have_it_asked(daemon, source)
            found.run(idle, "check-config", **environ)
            if not environ:
                (idle.folder / "keys").write_text(f"{LATER}\n")
                have_it_asked(daemon, source)
                assert daemon.logged("reloaded")
                look_at_everything(found, daemon, "backup", (("--json",), ()))
            end(daemon, found)
    found.check()


WRONG_PLACES: tuple[dict[str, dict[str, Any]], ...] = (
    {"dreamship": {"base_url": READS}},
    {"dreamship": {"base_url": f"https://{VERIFIES}@api.dreamship.com/v1"}},
    {"dreamship": {"api_keys": READS}},
    {"dreamship": {"api_keys": [READS, f"{READS} {READS}"]}},
    {"dreamship": {"api_key_file": READS}},
    {"dreamship": {"api_key_file": f"/nowhere/{VERIFIES}"}},
    {"dreamship": {"calls_per_minute": READS}},
    {"dreamship": {VERIFIES: 1}},
    {"dreamship": {f"api_keys{STEM}": 1}},
    {VERIFIES: {"x": 1}},
    {"webhook": {"listen": READS}},
    {"webhook": {"path": READS}},
    {"webhook": {"public_url": READS}},
    {"mirror": {"path": [READS]}},
    {"catalog": {"items": [READS]}},
    {"availability": {"sellable": READS}},
    {"reconcile": {"every": READS, "settle": VERIFIES}},
    {"admin": {"listen": READS}},
    {"notify": {"url": READS}},
    {"notify": {"command": READS}},
    {"log": {"level": READS, "format": VERIFIES}},
)


def until_refused(daemon: Daemon, times: int) -> None:
    broken = "the new configuration is invalid; the old one stays in force"
    daemon.site.until(lambda: len(daemon.logged(broken)) == times)


BROKEN_FILES = (
    f"[dreamship]\napi_keys = [{READS}]\n",
    f'[dreamship]\napi_keys = ["{READS}\n',
    f"[dreamship]\n{READS}\n",
    f"[dreamship]\napi_keys = ['{READS}']]\n",
    f"api_keys = '{READS}'\n{READS} = {READS}\n",
    f"[dreamship]\napi_keys = {'[' * 20_000}'{READS}'\n",
    f"[dreamship]\ncalls_per_minute = {'9' * 5000}\napi_keys = ['{READS}']\n",
)


def test_a_key_in_a_wrong_place_is_not_printed(idle: Site) -> None:
    """Every fault names its configuration key, and not the value."""
    found, good = Seen(), idle.config.read_text()
    broken = []
    for wrong in WRONG_PLACES:
        before = {name: dict(values) for name, values in idle.settings.items()}
        idle.configure(**wrong)
        broken.append(idle.config.read_text())
        idle.settings = before
    idle.config.write_text(good)
    daemon = idle.serve(filled=False)
    for number, text in enumerate([*broken, *BROKEN_FILES], 1):
        idle.config.write_text(text)
        # Every command reports the same error, because one function reads the keys.
        command = ("check-config", "serve", "doctor", "status", "reconcile-now")[number % 5]
        code = found.run(idle, command)
        # Commands that leave the work to the daemon read no keys, and so find no error in them.
        needs_keys = command not in {"status", "reconcile-now"}
        assert code in ({1, 2} if needs_keys else {1, 2, 4}), text[:300]
        daemon.process.send_signal(signal.SIGHUP)
        until_refused(daemon, number)
    end(daemon, found)
    found.check()


SABOTAGE = """
import itertools
import os
from pathlib import Path
if "SABOTAGE" in os.environ:
    from syncd.dreamship import client
    fetch = client.DreamshipClient._fetch
    async def broken(self, *arguments):
        if Path(os.environ["SABOTAGE"]).exists():
            raise RuntimeError(f"sabotage {dict(self._client.headers)} {os.environ}")
        return await fetch(self, *arguments)
    client.DreamshipClient._fetch = broken
"""


def test_tracebacks_contain_no_key(site: Site) -> None:
    """In the daemon's log and on a terminal; nor does a crash report."""
    (site.folder / "sitecustomize.py").write_text(SABOTAGE)
    order = site.folder / "order"
    keys = f"{READS},{site.key}"
    site.api.keys = (*site.api.keys, READS)
    environ = {
        "PYTHONPATH": f"{site.folder}:{os.environ.get('PYTHONPATH', '')}",
        "SABOTAGE": str(order),
        "SYNCD_DREAMSHIP_API_KEYS": keys,
        "PYTHONFAULTHANDLER": "1",
    }
    site.configure(log={"level": "debug"})
    daemon, found = site.serve(environ=environ), Seen()
    order.touch()
    daemon.deliver(site.change(next(iter(site.catalogue.variants)), "low_stock"))
    site.until(lambda: daemon.logged("a read failed for no known reason"))
    assert "sabotage" in daemon.logged("a read failed for no known reason")[0]["exception"]
    found.run(site, "doctor", **environ)
    done = site.syncd("doctor", environ=environ)
    assert "RuntimeError: sabotage" in done.stderr
    daemon.process.send_signal(signal.SIGABRT)
    assert daemon.process.wait(20) == -signal.SIGABRT
    assert b"Current thread" in daemon.log.read_bytes()
    found.add("log", daemon.log.read_bytes())
    found.add("mirror", site.bytes_on_disk())
    assert found.run(site, "reconcile-now", "--dry-run", **environ) == 1
    found.check()


def test_a_key_inside_a_delivery_is_stored_and_masked_in_the_log(site: Site) -> None:
    """The body belongs to its sender."""
    site.configure(log={"level": "debug"})
    daemon, found = site.serve(), Seen()
    event = site.change(next(iter(site.catalogue.variants)), "low_stock")
    body = site.body(replace(event, uuid=site.key))
    assert daemon.post(body).json() == {"outcome": "applied"}
    assert site.rows("SELECT body FROM deliveries") == [{"body": body}]
    site.until(lambda: daemon.logged("delivery"))
    (line,) = daemon.logged("delivery")
    assert line["event_id"] == "********"
    # A replaced key is not written either: it may be valid elsewhere.
    site.configure(dreamship={"api_keys": [LATER]})
    daemon.process.send_signal(signal.SIGHUP)
    site.until(lambda: daemon.logged("reloaded"))
    event = site.change(next(iter(site.catalogue.variants)), "in_stock")
    body = site.body(replace(event, uuid=f"{site.key} again"))
    assert daemon.post(body, key=LATER).status_code == 200
    site.until(lambda: len(daemon.logged("delivery")) > 1)
    assert [line["event_id"] for line in daemon.logged("delivery")] == [
        "********",
        "******** again",
    ]
    assert site.key.encode() not in daemon.log.read_bytes()
    # The header with the signature is not stored, and neither is the key.
    assert sign(body, (site.key,)).encode() not in site.bytes_on_disk() + daemon.log.read_bytes()
    # Nothing of a foreign delivery is stored.
    order = json.encode({"object": "order", "event": {"action": "x"}, "data": {"name": READS}})
    assert daemon.post(order, key=LATER).json() == {"outcome": "ignored"}
    end(daemon, found)
    found.check()


def test_a_proxy_gets_no_key_over_plain_http(idle: Site) -> None:
    """Plain HTTP is for this host only, whatever HTTP_PROXY says."""
    with echoing() as source, echoing() as proxy:
        idle.configure(dreamship={"base_url": f"{source.url}/v1"})
        environ = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), proxy.url)
        assert idle.syncd("doctor", environ=environ | {"NO_PROXY": ""}).returncode == 1
        assert (source.requested, proxy.requested) == (1, 0)


def test_a_notification_command_gets_no_keys(idle: Site, output: Path) -> None:
    """Its environment does not contain the daemon's keys."""
    with echoing() as source:
        idle.configure(dreamship={"base_url": f"{source.url}/v1"})
        source.how = "catalogue"
        daemon = idle.serve(environ=FAST | {"SYNCD_DREAMSHIP_API_KEYS": READS})
        # A health is reported only after a different health.
        idle.until(lambda: idle.rows("SELECT 1 FROM state WHERE key = 'reported_health'"))
        source.how = "refused"
        have_it_asked(daemon, source)
        refused = "Dreamship answered 401"
        idle.until(
            lambda: output.exists() and "PATH=" in output.read_text().partition(refused)[2],
            within_s=60,
        )
        daemon.stop()
    found = Seen()
    found.add("what it got", output.read_bytes())
    found.check()
