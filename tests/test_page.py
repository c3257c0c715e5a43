"""The status page: what it shows, that nothing on it runs, and how it looks in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.page import CHANGES, chart

if TYPE_CHECKING:
    from conftest import Daemon, Site

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is missing")


def shown(daemon: Daemon, query: str = "") -> str:
    answer = httpx.get(f"{daemon.admin_url}/", params={"q": query}, trust_env=False)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    return answer.text


def rendered(daemon: Daemon, tmp_path: Path, query: str = "") -> str:
    """Return the page's DOM after a real browser has loaded and run it."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=1000",
            "--dump-dom",
            f"{daemon.admin_url}/?q={query}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


class Tags(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one."""
        self.found.append((tag, dict(attrs)))


def test_it_says_in_one_word_whether_all_is_well_and_why_not(shared: Daemon) -> None:
    """The same words as the status document."""
    status = shared.status()
    text = shown(shared)
    assert f'class="health {status["health"]}"' in text
    assert f"<title>{status['health']} · syncd</title>" in text
    for title in ("Now", "The last 24 hours", "Sweeps", "Latest changes"):
        assert f">{title}</h2>" in text
    assert f"{status['mirror']['sellable']} of {status['mirror']['variants']} sellable" in text


def test_a_variant_is_found_by_id_item_and_name_with_its_story(shared: Daemon) -> None:
    """The story is what `explain` tells."""
    site = shared.site
    variant = list(site.catalogue.variants.values())[7]
    assert shared.deliver(site.change(variant.variant_id, "made to order")) == "applied"
    text = shown(shared, str(variant.variant_id))
    assert "is &#39;made to order&#39;, not sellable." in text
    assert "it was newer than every delivery and read before it" in text
    for query in (str(variant.item_id), site.catalogue.names[variant.item_id].lower(), "black"):
        assert f'href="?q={variant.variant_id}"' in shown(shared, query) or query == "black"
    assert "<p>None does.</p>" in shown(shared, "nothing is called like this")
    assert "<p>None does.</p>" in shown(shared, "100%_")


def test_whatever_a_name_holds_is_text(site: Site) -> None:
    """An item named <script>, a value, an action, a search: all escaped."""
    evil = "<script>alert(1)</script>\"'&"
    item_id = next(iter(site.catalogue.names))
    site.catalogue.names[item_id] = evil
    daemon = site.serve()
    variant = site.catalogue.of_item(item_id)[0]
    assert daemon.deliver(site.change(variant.variant_id, evil)) == "applied"
    assert daemon.post(b'{"event": {"action": "item-variant-<script>"}, "object": 1}').is_success
    for query in ("", str(variant.variant_id), evil):
        text = shown(daemon, query)
        assert "alert(1)" in text
        scripts = [attrs for tag, attrs in Tags(text).found if tag == "script"]
        assert scripts == [{"src": "page.js", "defer": None}]


def test_nothing_is_asked_of_another_host_and_nothing_is_inline(shared: Daemon) -> None:
    """No address with a scheme, no style or handler in a tag: the policy would stop them anyway."""
    for tag, attrs in Tags(shown(shared, "t")).found:
        assert not {"style", *(name for name in attrs if name.startswith("on"))} & set(attrs)
        for name in ("src", "href", "action"):
            assert "//" not in (attrs.get(name) or ""), (tag, attrs)
    for name in ("page.js", "page.css"):
        answer = httpx.get(f"{shared.admin_url}/{name}", trust_env=False)
        assert answer.status_code == 200
        assert "//" not in re.sub(r"^\s*//.*$", "", answer.text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", ["/page.html", "/../pyproject.toml", "/page/", "/page.css/x"])
def test_only_its_own_files_are_served(shared: Daemon, path: str) -> None:
    """No path leads out of the page's folder."""
    assert httpx.get(shared.admin_url + path, trust_env=False).status_code == 404


@needs_chromium
def test_a_real_browser_shows_it_and_it_renews_itself(shared: Daemon, tmp_path: Path) -> None:
    """Its script and style run under its own policy, and no error is left in it."""
    text = rendered(shared, tmp_path)
    assert 'id="live"' in text
    assert "does not answer" not in text
    assert text.count("<h2") >= 4


@given(
    st.lists(
        st.dictionaries(st.sampled_from(CHANGES), st.integers(0, 10_000)), min_size=1, max_size=24
    )
)
def test_a_chart_stays_in_its_frame(rows: list[dict[str, int]]) -> None:
    """Columns are stacked from the bottom, none higher than the frame, and add up."""
    drawn = chart("Changes", rows, CHANGES)
    assert drawn.total == sum(sum(row.values()) for row in rows)
    for x in range(len(rows)):
        column = [bar for bar in drawn.bars if bar.x == x]
        assert sum(bar.height for bar in column) <= 100.1
        assert all(-0.1 <= bar.y <= 100 for bar in column)
