"""nginx caches Dreamship's answers: which copies syncd can detect, and which it cannot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import KEY
from load.station import free_port
from proxies import NGINX, find_program, running

from syncd.core.model import ItemRead
from syncd.core.read_age import UNKNOWN_AGE
from syncd.demo.fake_dreamship import Api, Catalog, serving_in_thread
from syncd.dreamship.client import DreamshipClient

_SITE = """
proxy_cache_path {folder}/cache keys_zone=copies:1m;
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass {to};
        proxy_cache copies;
        proxy_cache_valid 200 5m;
        {more}
    }}
}}
"""


def read_twice(folder: Path, more: str) -> tuple[list[ItemRead], int]:
    """Return two reads of an item through nginx, and how many of them reached Dreamship."""
    catalogue = Catalog.generate(1, 2, seed=1, now=lambda: datetime.now(UTC))
    (item_id,) = catalogue.names
    api = Api(catalogue, (KEY,))
    port = free_port()

    async def read() -> list[ItemRead]:
        source = DreamshipClient(
            f"http://127.0.0.1:{port}/v1", KEY, timeout_s=10, now=lambda: datetime.now(UTC)
        )
        try:
            return [await source.item(item_id) for _ in range(2)]
        finally:
            await source.aclose()

    with serving_in_thread(api) as base_url:
        to = base_url.removesuffix("/v1")
        site = _SITE.format(folder=folder, port=port, to=to, more=more)
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, site=site))
        with running(folder, port, find_program("nginx"), "-e", "stderr", "-c", str(config)):
            return asyncio.run(read()), len(api.calls)


@pytest.mark.parametrize(
    "more",
    [
        "add_header X-Cache-Status $upstream_cache_status;",
        "add_header X-Cache $upstream_cache_status;",
        "add_header X-Cache-Status $upstream_cache_status; proxy_pass_header Date;",
    ],
)
def test_a_copy_that_nginx_marks_has_an_unknown_age(tmp_path: Path, more: str) -> None:
    """The first answer is Dreamship's, the second nginx's, although the request says `no-cache`."""
    (first, second), calls = read_twice(tmp_path, more)
    assert calls == 1
    assert (first.age.total_seconds(), second.age) == (0, UNKNOWN_AGE)


def test_an_unmarked_copy_of_nginx_cannot_be_detected(tmp_path: Path) -> None:
    """As documented; if nginx begins to send `Age`, that page must change."""
    (first, second), calls = read_twice(tmp_path, "")
    assert calls == 1
    assert not first.age
    assert not second.age


def test_nginx_can_be_configured_to_respect_no_cache(tmp_path: Path) -> None:
    """Every call says that it wants no copy."""
    (_, second), calls = read_twice(tmp_path, "proxy_cache_bypass $http_pragma;")
    assert calls == 2
    assert not second.age
