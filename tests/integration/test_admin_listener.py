"""The admin listener: its answers, its access rules, and metrics that Prometheus accepts."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from documents import PACKAGE, ROOT, rows, section, spelled
from msgspec import convert
from prometheus_client.parser import text_string_to_metric_families
from shop_listings import list_skus

from syncd.admin import metrics
from syncd.core.status_document import StatusDocument
from syncd.webhook.metrics import delivery_seconds

if TYPE_CHECKING:
    from conftest import Daemon, Site

ALERTS = PACKAGE / "monitoring" / "alerts.yml"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing (Debian's package prometheus)"
)


def page(daemon: Daemon) -> str:
    answer = httpx.get(f"{daemon.admin_url}/metrics", trust_env=False)
    assert answer.status_code == 200
    return answer.text


def sample(daemon: Daemon, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(page(daemon)):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return one.value
    raise AssertionError(f"no {name}{labels}")


def test_metrics_count_the_answers(shared: Daemon) -> None:
    """Counters rise with each answer; gauges have the values of the status document."""
    site = shared.site
    variant_id = next(iter(site.catalogue.variants))
    applied = sample(shared, "syncd_deliveries_total", outcome="applied")
    refused = sample(shared, "syncd_requests_refused_total", reason="signature")
    body = site.body(site.change(variant_id, "made to order"))
    assert shared.post(body).json() == {"outcome": "applied"}
    assert shared.post(body, key="wrong").status_code == 401
    assert sample(shared, "syncd_deliveries_total", outcome="applied") == applied + 1
    assert sample(shared, "syncd_requests_refused_total", reason="signature") == refused + 1
    status = shared.status()
    assert sample(shared, "syncd_items") == status["mirror"]["items"] == 12
    states = ("sellable", "not_sellable", "removed")
    assert sum(sample(shared, "syncd_variants", state=one) for one in states) == 48
    assert sample(shared, "syncd_health", state=status["health"]) == 1
    assert sample(shared, "syncd_last_sweep_complete") == 1
    assert sample(shared, "syncd_database_bytes") > 0


def test_metrics_count_the_costs(shared: Daemon) -> None:
    """A delivery takes a commit and, for its confirmation, a call to Dreamship."""
    site = shared.site
    names = ("syncd_commits_total", "syncd_dreamship_calls_total")
    before = [sample(shared, name) for name in names]
    shared.deliver(site.change(next(iter(site.catalogue.variants)), "made to order"))
    site.until(
        lambda: all(sample(shared, name) > value for name, value in zip(names, before, strict=True))
    )


def test_metrics_have_the_bytes_that_the_kernel_counts(shared: Daemon) -> None:
    """The metric is `write_bytes` of the process."""
    accounting = Path(f"/proc/{shared.process.pid}/io")
    before = metrics.written_bytes(accounting)
    counted = sample(shared, "syncd_written_bytes_total")
    after = metrics.written_bytes(accounting)
    assert before is not None
    assert after is not None
    assert before <= counted <= after


def test_bytes_that_the_kernel_does_not_count_are_absent(shared: Daemon, tmp_path: Path) -> None:
    """Zero would say that nothing is written."""
    (tmp_path / "io").write_text("rchar: 1\n")
    assert metrics.written_bytes(tmp_path / "io") is None
    assert metrics.written_bytes(tmp_path / "missing") is None
    text = metrics.exposition(
        convert(shared.status(), StatusDocument),
        {},
        delivery_seconds(),
        metrics.Sizes(database_bytes=1, log_bytes=1, free_bytes=1),
        metrics.Costs(written_bytes=None, commits=2, calls=3),
        refused={},
    ).decode()
    assert "syncd_written_bytes" not in text
    assert "\nsyncd_commits_total 2.0\n" in text
    assert "\nsyncd_dreamship_calls_total 3.0\n" in text


def test_every_metric_is_documented_and_no_other(shared: Daemon) -> None:
    """The documented table equals the page of a shop with listings; names begin with syncd_."""
    variant_id = next(iter(shared.site.catalogue.variants))
    list_skus(shared, [("TEE-BLACK", variant_id, "")])
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(page(shared))
    }
    assert all(name.startswith("syncd_") for name in found)
    documented = {spelled(row[0]) for row in rows(section("Metrics"), "metric")}
    assert documented == {name for name in found if not name.startswith("syncd_process_")}


@needs_promtool
def test_promtool_accepts_the_metrics(shared: Daemon) -> None:
    """Names, units and types follow its conventions."""
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page(shared),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_promtool
def test_the_alert_rules_fire_as_expected(tmp_path: Path) -> None:
    """Promtool checks them and runs them over synthetic hours."""
    tests = tmp_path / "alerts_test.yml"
    text = (ROOT / "tests" / "alerts_test.yml").read_text()
    assert text.count("../syncd/monitoring/alerts.yml") == 1
    tests.write_text(text.replace("../syncd/monitoring/alerts.yml", str(ALERTS)))
    for arguments in (["check", "rules", str(ALERTS)], ["test", "rules", str(tests)]):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8788", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8788", 200),
        ("127.9.9.9", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("192.168.0.1", 421),
        ("", 421),
        ("[", 421),
        ("[::1", 421),
        ("[::1].evil.example", 421),
        ("localhost:80@evil.example", 421),
        ("evil.example/localhost", 421),
        ("0.0.0.0", 421),
    ],
)
def test_a_foreign_host_name_is_refused(shared: Daemon, host: str, code: int) -> None:
    """A web page whose name resolves to loopback must not read it."""
    for path in ("/status.json", "/metrics"):
        answer = httpx.get(shared.admin_url + path, headers={"Host": host}, trust_env=False)
        assert answer.status_code == code
    assert not [line for line in shared.lines() if line["level"] == "error"]


@pytest.mark.parametrize("path", ["/", "/status.json", "/metrics", "/page.css", "/page.js"])
def test_only_get_and_head_are_allowed(shared: Daemon, path: str) -> None:
    """Every action goes through the control socket."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert httpx.request(method, shared.admin_url + path, trust_env=False).status_code == 405


@pytest.mark.parametrize("path", ["/reconcile", "/replay", "/status", "/healthz", "/webhooks/x"])
def test_paths_of_the_other_listeners_are_404(shared: Daemon, path: str) -> None:
    """And the paths of the admin listener are 404 on the public one."""
    for method in ("GET", "POST"):
        assert httpx.request(method, shared.admin_url + path, trust_env=False).status_code == 404
        if path != "/healthz":
            public = str(httpx.URL(shared.webhook_url).copy_with(path=path))
            assert httpx.request(method, public, trust_env=False).status_code == 404


def test_the_headers_keep_other_sites_out(shared: Daemon) -> None:
    """Every answer forbids framing, embedding, sniffing and caching; none allows an origin."""
    for path, host, code in (
        *(("/", "localhost", 200), ("/status.json", "localhost", 200)),
        *(("/metrics", "localhost", 200), ("/page.js", "localhost", 200)),
        *(("/nothing", "localhost", 404), ("/", "evil.example", 421)),
    ):
        headers = {"Host": host, "Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
        answer = httpx.get(shared.admin_url + path, headers=headers, trust_env=False)
        assert answer.status_code == code
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers.get_list("Cross-Origin-Resource-Policy") == ["same-origin"]
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
        assert answer.headers.get_list("Cache-Control") == ["no-store"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "set-cookie" not in answer.headers


OUTSIDE_PATHS = (
    b"/../config.toml",
    b"/page.css/../../config.toml",
    b"/%2e%2e/config.toml",
    b"/..%2fconfig.toml",
    b"/%2e%2e%2f%2e%2e%2fetc/passwd",
    b"/....//config.toml",
    b"//etc/passwd",
    b"/page.css%00.html",
    b"/page.html",
    b"http://evil.example/etc/passwd",
)


@pytest.mark.parametrize("path", OUTSIDE_PATHS)
def test_no_path_leaves_the_folder(shared: Daemon, path: bytes) -> None:
    """As raw bytes, which no client normalises, on each listener."""
    for url in (shared.admin_url, shared.webhook_url, ""):
        with socket.socket(socket.AF_INET if url else socket.AF_UNIX) as connection:
            to = httpx.URL(url)
            connection.connect((to.host, to.port) if url else str(shared.site.socket))
            connection.sendall(b"GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n" % path)
            output = b"".join(iter(lambda: connection.recv(65536), b""))
        assert output.split(b" ")[1] in {b"400", b"404"}, output
        assert b"root:" not in output
        assert b"[dreamship]" not in output


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.168.0.1:8788"])
def test_a_public_admin_address_is_refused(idle: Site, listen: str) -> None:
    """Unless the configuration allows it explicitly."""
    idle.configure(admin={"listen": listen})
    done = idle.syncd("check-config")
    assert done.returncode == 2
    assert "admin.listen: is not on loopback" in done.stderr
    assert idle.syncd("check-config", environ={"SYNCD_ADMIN_ALLOW_REMOTE": "1"}).returncode == 0


@contextmanager
def handed(
    site: Site, sockets: dict[str, socket.socket], **environ: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a daemon with sockets as a service manager hands them over, and end it."""
    moves = "".join(f' {3 + n}<&"${n}"' for n in range(len(sockets)))
    script = f'exec{moves}; shift {len(sockets) - 1}; LISTEN_PID=$$ exec "$@"'
    numbers = [str(one.fileno()) for one in sockets.values()]
    process = subprocess.Popen(
        ["bash", "-c", script, *numbers, *site.command("serve")],
        env=site.environ
        | {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(sockets)}
        | environ,
        pass_fds=[one.fileno() for one in sockets.values()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_public_socket_from_systemd_is_refused_for_admin_and_control(
    idle: Site,
) -> None:
    """The configuration does not contain its address."""
    allowing = {"SYNCD_ADMIN_ALLOW_REMOTE": "1"}
    for name, listen, environ in (
        ("admin", "0.0.0.0", {}),
        ("control", "127.0.0.1", {}),
        ("control", "127.0.0.1", allowing),
    ):
        with (
            socket.create_server((listen, 0)) as one,
            handed(idle, {name: one}, **environ) as process,
        ):
            _, message = process.communicate(timeout=20)
        assert process.returncode == 2
        assert f"Error: {name}." in message
        assert "Traceback" not in message
    with socket.create_server(("0.0.0.0", 0)) as one, handed(idle, {"admin": one}, **allowing):
        url = f"http://127.0.0.1:{one.getsockname()[1]}/status.json"
        # The configuration says that other hosts reach it, by any name.
        answer = httpx.get(url, headers={"Host": "shop.example"}, trust_env=False, timeout=20)
        assert answer.status_code == 200
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_an_empty_address_turns_the_admin_listener_off(site: Site) -> None:
    """No listener is opened."""
    site.configure(admin={"listen": ""})
    daemon = site.serve(filled=False)
    listeners: list[Any] = [line["listener"] for line in daemon.logged("listening")]
    assert listeners == ["webhook", "control"]
