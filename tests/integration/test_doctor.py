"""`doctor` finds each fault and names the one remedy; `init` writes a valid configuration."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from msgspec import to_builtins
from proxies import PATH, Front, nginx

from syncd.cli.doctor import send_test_delivery
from syncd.cli.doctor_checks import DELIVERY_CHECK as OUTSIDE
from syncd.cli.doctor_checks import check_clock
from syncd.core.signature import HEADER

if TYPE_CHECKING:
    from conftest import Daemon, Site


@contextmanager
def proxy(to: str, change: Callable[[bytes, dict[str, str]], Any]) -> Iterator[str]:
    """Be a proxy; `change` returns the request to pass on, or a whole answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            passed = change(body, {HEADER: self.headers[HEADER] or ""})
            if isinstance(passed, int):
                code, answer = passed, b"<html>"
            else:
                output = httpx.post(to, content=passed[0], headers=passed[1], trust_env=False)
                code, answer = output.status_code, output.content
            self.send_response(code)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def examined(
    site: Site, environ: dict[str, str] | None = None
) -> tuple[int, dict[str, dict[str, str]]]:
    done = site.syncd("doctor", "--json", environ=environ)
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
    assert all(one["hint"] for one in found.values() if one["verdict"] != "pass")
    return done.returncode, found


def from_outside(site: Site, front: Front) -> dict[str, str]:
    """Return the findings of `doctor` behind this proxy; it trusts the proxy's certificate."""
    site.configure(webhook={"public_url": front.url})
    return examined(site, {"SSL_CERT_FILE": str(front.certificate)})[1][OUTSIDE]


@pytest.fixture
def well(open_site: Callable[..., AbstractContextManager[Site]]) -> Iterator[Daemon]:
    """Give a daemon with its own address as public URL, in a folder that others can enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with open_site(Path(folder), items=2) as site:
            daemon = site.serve()
            daemon.deliver_first()
            site.mirror.parent.chmod(0o750)
            site.configure(webhook={"public_url": daemon.webhook_url})
            site.config.chmod(0o640)
            yield daemon


def test_every_check_passes_on_a_healthy_installation(well: Daemon) -> None:
    """The test delivery changes nothing."""
    changes = well.site.rows("SELECT count(*) AS n FROM changes")
    code, found = examined(well.site)
    assert code == 0, found
    assert {one["verdict"] for one in found.values()} == {"pass"}
    assert len(found) == 10
    assert well.site.rows("SELECT count(*) AS n FROM changes") == changes
    plain = well.site.syncd("doctor")
    assert plain.stdout.count("pass ") == 10


def test_a_proxy_that_rewrites_json_is_found(shared: Daemon) -> None:
    """The test delivery is written as no JSON library writes it."""
    with proxy(
        shared.webhook_url, lambda body, headers: (json.dumps(json.loads(body)).encode(), headers)
    ) as url:
        shared.site.configure(webhook={"public_url": url})
        code, found = examined(shared.site)
    assert (code, found[OUTSIDE]["verdict"]) == (1, "fail")
    assert "rewrites the body" in found[OUTSIDE]["hint"]


PASSED = "proxy_pass http://{to};"
SHUT = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("change", "output", "hint"),
    [
        pytest.param(
            ("proxy_next_upstream off;", 'proxy_set_body "$request_body ";'),
            " bytes were answered 401",
            "rewrites the body: let it pass the body on unchanged",
            id="rewrites the body",
        ),
        pytest.param(
            ("proxy_next_upstream off;", f'proxy_set_header {HEADER} "";'),
            " bytes were answered 401",
            f"removes the header {HEADER}: let it pass the header on",
            id="removes the header",
        ),
        pytest.param(
            (PASSED, "return 200;"),
            "answered 200, not by syncd but by nginx",
            "answers by itself: let it pass webhook.path on",
            id="answers by itself",
        ),
        pytest.param(
            (f"location = {PATH}", "location = /hooks"),
            "answered 404, not by syncd but by nginx",
            "webhook.public_url, webhook.path and the path that the web server passes on",
            id="another path",
        ),
        pytest.param(
            (PASSED, "return 308 https://www.example.com$request_uri;"),
            f", to https://www.example.com{PATH}",
            "set webhook.public_url to the final URL",
            id="redirects",
        ),
        pytest.param(
            (PASSED, f"proxy_pass http://{SHUT};"),
            "answered 502, not by syncd but by nginx",
            "check the address and the daemon",
            id="nobody behind it",
        ),
        pytest.param(
            ("client_max_body_size 1m;", "client_max_body_size 100k;"),
            "1,048,576 bytes were answered 413, not by syncd but by nginx",
            "allow at least webhook.max_body_bytes",
            id="too low a limit",
        ),
        pytest.param(
            (PASSED, "return 401;"),
            "answered 401, not by syncd but by nginx",
            "asks for a password",
            id="asks for a password",
        ),
    ],
)
def test_a_faulty_proxy_is_named_with_a_hint(
    shared: Daemon, tmp_path: Path, change: tuple[str, str], output: str, hint: str
) -> None:
    """The documented nginx with one fault, seen from outside."""
    url = httpx.URL(shared.webhook_url)
    to = f"{url.host}:{url.port}"
    with nginx(tmp_path, to, (change[0].format(to=to), change[1])) as front:
        finding = from_outside(shared.site, front)
    assert finding["verdict"] == "fail"
    assert output in finding["told"]
    assert hint in finding["hint"]


def test_a_hanging_upstream_is_named(shared: Daemon, tmp_path: Path) -> None:
    """By the proxy if it gives up first, else by doctor."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        to = f"127.0.0.1:{deaf.getsockname()[1]}"
        with nginx(tmp_path, to, ("proxy_read_timeout 30s", "proxy_read_timeout 1s")) as front:
            finding = from_outside(shared.site, front)
        assert "answered 504" in finding["told"]
        assert "gets no answer from webhook.listen" in finding["hint"]
        finding = to_builtins(send_test_delivery(f"http://{to}/", "key", timeout_s=0.2))
        assert finding["told"] == "no answer within 0.2 s"
        assert "cannot reach webhook.listen" in finding["hint"]


def test_every_check_passes_behind_the_documented_nginx(shared: Daemon, tmp_path: Path) -> None:
    """With TLS; a certificate that no authority signed fails."""
    url = httpx.URL(shared.webhook_url)
    with nginx(tmp_path, f"{url.host}:{url.port}") as front:
        finding = from_outside(shared.site, front)
        assert (finding["verdict"], finding["told"]) == ("pass", "answered 200 ignored")
        shared.site.configure(webhook={"public_url": front.url})
        finding = examined(shared.site)[1][OUTSIDE]
        assert finding["verdict"] == "fail"
        assert "certificate verify failed" in finding["told"]
        assert "the certificate" in finding["hint"]


def test_a_transparent_proxy_passes(shared: Daemon) -> None:
    """It forwards the body byte by byte."""
    with proxy(shared.webhook_url, lambda body, headers: (body, headers)) as url:
        shared.site.configure(webhook={"public_url": url})
        assert examined(shared.site)[1][OUTSIDE]["verdict"] == "pass"


def test_each_fault_is_one_failed_check(site: Site) -> None:
    """No daemon, no mirror folder, no Dreamship, no public URL."""
    site.api.faults.refused_with = 401
    site.configure(mirror={"path": str(site.folder / "nowhere" / "mirror.db")})
    code, found = examined(site)
    assert code == 1
    assert found["Dreamship accepts the api key"]["verdict"] == "fail"
    assert found["the daemon is up and well"]["verdict"] == "fail"
    assert found["the mirror can be written by this user"]["verdict"] == "fail"
    assert found[OUTSIDE]["verdict"] == "warn"


def test_a_mirror_that_cannot_be_accessed_is_a_failed_check(site: Site) -> None:
    """The other checks still run."""
    too_long = site.folder / ("x" * 300) / "mirror.db"
    site.configure(mirror={"path": str(too_long)})
    code, found = examined(site)
    assert code == 1
    for check in ("the mirror can be written by this user", "the shop can read the mirror"):
        assert (found[check]["verdict"], found[check]["hint"]) == (
            "fail",
            "choose a shorter mirror.path",
        )
    assert found["Dreamship accepts the api key"]["verdict"] == "pass"


def test_world_readable_keys_are_a_warning(site: Site) -> None:
    """In the configuration or in a key file; the file is named."""
    check = "the api keys are in no file that everybody can read"
    site.config.chmod(0o644)
    assert examined(site)[1][check]["hint"] == f"chmod o= {site.config}"
    keys = site.folder / "keys"
    keys.write_text(site.key)
    keys.chmod(0o604)
    site.configure(dreamship={"api_keys": [], "api_key_file": "keys"})
    assert examined(site)[1][check]["hint"] == f"chmod o= {keys}"
    keys.chmod(0o640)
    assert examined(site)[1][check]["verdict"] == "pass"


def test_a_missing_key_file_does_not_matter_if_the_environment_has_keys(site: Site) -> None:
    """The file is never opened."""
    site.configure(dreamship={"api_keys": [], "api_key_file": "nowhere/keys"})
    done = site.syncd("doctor", environ={"SYNCD_DREAMSHIP_API_KEYS": site.key})
    assert "Traceback" not in done.stderr
    assert "the api keys are in no file that everybody can read" in done.stdout


def test_a_faulty_configuration_ends_the_checks(site: Site) -> None:
    """Each fault is a failed check."""
    site.configure(log={"level": "loud"})
    done = site.syncd("doctor", "--json")
    assert done.returncode == 1
    assert [one["verdict"] for one in json.loads(done.stdout)["checks"]] == ["fail"]
    assert site.key not in done.stdout


def test_the_clock_is_compared_with_dreamships(site: Site) -> None:
    """A difference of minutes fails, a difference of seconds passes."""
    site.serve()
    site.api.faults.date_skew_s = 900
    assert examined(site)[1]["this host's clock agrees with Dreamship's"]["verdict"] == "fail"
    assert check_clock(timedelta(seconds=-2)).verdict == "pass"
    assert check_clock(timedelta(seconds=20)).verdict == "warn"


CONNECTIONS = "the limit of open files allows all connections"


def with_open_files(most: int, command: list[str]) -> list[str]:
    """Return a command that may open so many files, and may not allow itself more."""
    return ["sh", "-c", f'ulimit -n {most} && exec "$@"', "sh", *command]


def test_a_low_limit_of_open_files_is_found(site: Site) -> None:
    """The limit of the running daemon, or of this process without one."""
    few = with_open_files(300, site.command("doctor", "--json"))
    done = subprocess.run(few, env=site.environ, capture_output=True, text=True, check=False)
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}[CONNECTIONS]
    assert (found["verdict"], found["told"].split(",")[1]) == ("warn", " not 500")
    assert found["told"].startswith("100 connections for a daemon with the limits of this command")
    with subprocess.Popen(
        with_open_files(300, site.command("serve")), env=site.environ, stderr=subprocess.DEVNULL
    ) as daemon:
        try:
            site.until(lambda: examined(site)[1][CONNECTIONS]["told"] == "100 connections, not 500")
            found = examined(site)[1][CONNECTIONS]
            assert found["verdict"] == "warn"
            assert "LimitNOFILE=1100 in its unit" in found["hint"]
        finally:
            daemon.terminate()
    needed = with_open_files(1100, site.command("doctor", "--json"))
    done = subprocess.run(needed, env=site.environ, capture_output=True, text=True, check=False)
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}[CONNECTIONS]
    assert (found["verdict"], found["told"][:15]) == ("pass", "500 connections")


def test_init_writes_a_configuration_that_lacks_only_the_key(tmp_path: Path) -> None:
    """With comments, for owner and group; it overwrites no file."""
    path = tmp_path / "new" / "config.toml"
    from syncd.cli import run  # noqa: PLC0415 - in this process: it needs no site

    before = os.umask(0o022)
    try:
        assert run(["init", "-c", str(path)]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "# A sweep of the mirrored catalogue takes at most this time" in path.read_text()
    assert run(["check-config", "-c", str(path)]) == 2
    path.write_text(path.read_text().replace("api_keys = []", 'api_keys = ["k"]'))
    assert run(["check-config", "-c", str(path)]) == 0
    assert run(["init", "-c", str(path)]) == 2
    assert '"k"' in path.read_text()


def test_serve_without_a_configuration_names_setup(idle: Site) -> None:
    """In one or two lines."""
    idle.config.unlink()
    done = idle.syncd("serve", config=False)
    assert done.returncode == 2
    assert "`syncd setup` asks and writes one" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
