"""TLS in front: nginx and Caddy, configured as documented, before a real daemon."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import proxies
import pytest
from load.restart import restart
from proxies import PATH, Front

from syncd.core.signature import HEADER, sign

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

LIMIT = 1_048_576
BOTH = pytest.mark.parametrize("set_up", [proxies.nginx, proxies.caddy], ids=["nginx", "caddy"])
SetUp = Callable[[Path, str], AbstractContextManager[Front]]


def listener(daemon: Daemon) -> str:
    """Return where it listens, as the documented sites name it."""
    url = httpx.URL(daemon.webhook_url)
    return f"{url.host}:{url.port}"


def odd(site: Site, size: int, value: str) -> bytes:
    """Return a delivery of this size that nobody would write again as it is."""
    variant_id = next(iter(site.catalogue.variants))
    text = site.body(site.change(variant_id, value)).decode().replace('", "', '"\t,\r\n  "', 1)
    head = '\n { "n\\u00f6te": "\\u00e9 \u00e9 \U0001f455 \\/ {}", "n": 1.0, "n": 1e0, "pad": "'
    foot = f'", {text[1:-1]} }} \n\n'
    room = size - len((head + foot).encode())
    return (head + "\u00fc" * (room // 2) + " " * (room % 2) + foot).encode()


@BOTH
def test_a_delivery_passes_byte_by_byte(shared: Daemon, tmp_path: Path, set_up: SetUp) -> None:
    """In any notation, up to the last byte that syncd accepts."""
    site = shared.site
    with set_up(tmp_path, listener(shared)) as front:
        for size in (2_000, 900_000, LIMIT):
            body = odd(site, size, f"{size} left through {set_up.__name__}")
            assert len(body) == size
            answer = front.post(body, site.key)
            assert answer.status_code == 200
            # A read may have been faster.
            assert answer.json()["outcome"] in {"applied", "unchanged"}
            output = site.syncd("deliveries", "--body", "--json", "--limit=1")
            assert json.loads(output.stdout)["body"].encode() == body


def test_nginx_refuses_other_requests(shared: Daemon, tmp_path: Path) -> None:
    """As documented; they never reach the daemon."""

    def code(answer: httpx.Response) -> int:
        assert answer.headers["Content-Type"] == "text/html", "syncd answered"
        return answer.status_code

    with proxies.nginx(tmp_path, listener(shared)) as front, front.client() as client:
        too_large = odd(shared.site, LIMIT + 1, "none")
        headers = {HEADER: sign(too_large, (shared.site.key,))}
        for content in (too_large, iter([too_large])):
            assert code(client.post(front.url, content=content, headers=headers)) == 413
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            assert code(client.request(method, front.url)) == 405
        for path in ("/healthz", "/", PATH + "/", PATH + "/..", "/metrics"):
            url = front.url.replace(PATH, path)
            assert code(client.post(url, content=b"{}")) == 404
            assert code(client.get(url)) == 404


def test_caddy_refuses_other_requests(shared: Daemon, tmp_path: Path) -> None:
    """As documented; a body over the limit is cut and never accepted."""
    with proxies.caddy(tmp_path, listener(shared)) as front, front.client() as client:
        too_large = odd(shared.site, LIMIT + 1, "none")
        with suppress(httpx.RemoteProtocolError):  # cut off before its answer was whole
            assert front.post(too_large, shared.site.key).status_code in {413, 502}
        for path in (PATH, "/healthz", "/", "/metrics"):
            assert client.get(front.url.replace(PATH, path)).status_code == 404
        for path in ("/healthz", "/", PATH + "/"):
            assert client.post(front.url.replace(PATH, path), content=b"{}").status_code == 404


def test_caddy_accepts_the_documented_site(tmp_path: Path) -> None:
    """With its certificate."""
    done = proxies.validated(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Valid configuration" in done.stdout + done.stderr


@BOTH
def test_answers_of_syncd_pass_unchanged(shared: Daemon, tmp_path: Path, set_up: SetUp) -> None:
    """The sender's faults and ours have different codes, behind a proxy too."""
    with set_up(tmp_path, listener(shared)) as front:
        refused = front.post(b"{}", "another key")
    assert refused.status_code == 401
    assert HEADER in refused.json()["error"]


@BOTH
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_the_log_has_the_address_of_the_client(
    idle: Site, tmp_path: Path, set_up: SetUp, kind: str
) -> None:
    """Not that of the proxy, and not the one in the sender's headers."""
    path = idle.folder / "hook.sock"
    if kind == "unix":
        idle.configure(webhook={"listen": f"unix:{path}"})
    daemon = idle.serve(filled=False)
    unix = {"nginx": f"unix:{path}", "caddy": f"unix/{path}"}[set_up.__name__]
    to = unix if kind == "unix" else listener(daemon)
    with set_up(tmp_path, to) as front, front.client("127.0.0.9") as client:
        assert client.post(front.url, headers={"X-Forwarded-For": "6.6.6.6"}).status_code == 401
    idle.until(lambda: daemon.logged("a request without a valid signature was refused"))
    (line,) = daemon.logged("a request without a valid signature was refused")
    assert line["client"] == "127.0.0.9"


@BOTH
def test_a_restart_behind_a_proxy_loses_no_delivery(tmp_path: Path, set_up: SetUp) -> None:
    """With a held listener, as documented: none lost, doubled or answered wrongly."""

    @contextmanager
    def in_front(port: int) -> Iterator[list[str]]:
        with set_up(tmp_path, f"127.0.0.1:{port}") as front:
            yield [f"--port={front.port}", f"--trust={front.certificate}"]

    done = restart(tmp_path, restarts=3, seed=3, in_front=in_front)
    assert done.problems == []
    assert done.report.statuses.keys() == {"200"}
    assert set(done.unanswered.values()) == {0}
    assert done.report.longest_wait_s < 20
    assert len(done.report.accepted) > 60


def test_without_a_held_listener_the_proxy_answers_502(tmp_path: Path) -> None:
    """Dreamship retries it."""
    with ExitStack() as ending:
        closed = socket.create_server(("127.0.0.1", 0))
        to = f"127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        front = ending.enter_context(proxies.nginx(tmp_path, to))
        assert front.post(b"{}", "key").status_code == 502
