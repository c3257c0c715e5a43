"""The status page: its content and its safety; its appearance is tested in Chromium."""

from __future__ import annotations

import html
import re
import socket
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from msgspec import convert
from simulation.moments import showing

from syncd.admin.page import HEADERS
from syncd.core.headline import headline
from syncd.core.health import APP_URL
from syncd.core.status_document import StatusDocument
from syncd.daemon.cached_queries import QUICK_S, CachedQuery
from syncd.store import Queries
from syncd.store.connection import open_for_writing
from syncd.store.dashboard import day

if TYPE_CHECKING:
    from conftest import Daemon, Site


def shown(daemon: Daemon, query: str = "") -> str:
    answer = httpx.get(f"{daemon.admin_url}/", params={"q": query}, trust_env=False)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    return answer.text


class Tags(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Store one tag."""
        self.found.append((tag, dict(attrs)))


def test_the_page_shows_the_headline_and_problems(shared: Daemon) -> None:
    """With the words of the headline, and the name of the host in the title."""
    status = shared.status()
    text = shown(shared)
    head = headline(convert(status, StatusDocument), datetime.now(UTC))
    assert f'class="hero {head.color}"' in text
    assert f"<title>{head.label} · {socket.gethostname()}</title>" in text
    for title in ("Behind it", "The last 24 hours", "Sweeps", "Latest changes"):
        assert f">{title}</h2>" in text
    assert f"Selling {status['mirror']['sellable']} of {status['mirror']['variants']}" in text
    assert f"(health {status['health']})" in text
    for problem in status["problems"]:
        assert problem["message"].partition("`")[0] in html.unescape(text)


def test_a_search_finds_a_variant_with_its_history(shared: Daemon) -> None:
    """By id, item or name; the history is that of `explain`."""
    site = shared.site
    variant = list(site.catalogue.variants.values())[7]
    assert shared.deliver(site.change(variant.variant_id, "made to order")) == "applied"
    text = shown(shared, str(variant.variant_id))
    assert "is &#39;made to order&#39;, not sellable." in text
    assert "newer than all earlier deliveries and reads" in text
    for query in (str(variant.item_id), site.catalogue.names[variant.item_id].lower(), "black"):
        assert f'href="?q={variant.variant_id}"' in shown(shared, query) or query == "black"
    assert ">No variant matches.</p>" in shown(shared, "nothing is called like this")
    assert ">No variant matches.</p>" in shown(shared, "100%_")
    assert "does not have this variant" in shown(shared, "999999")
    for no_id in ("\N{SUPERSCRIPT TWO}", str(2**63), "9" * 99):
        assert ">No variant matches.</p>" in shown(shared, no_id)


def test_names_and_values_are_escaped(site: Site) -> None:
    """An item named <script>, a value, an action, a search."""
    evil = "<script>alert(1)</script>\"'&"
    item_id = next(iter(site.catalogue.names))
    site.catalogue.names[item_id] = evil
    daemon = site.serve()
    variant = site.catalogue.of_item(item_id)[0]
    assert daemon.deliver(site.change(variant.variant_id, evil)) == "applied"
    assert daemon.post(b'{"event": {"action": "item-variant-<script>"}, "object": 1}').is_success
    with closing(sqlite3.connect(site.mirror)) as connection, connection:
        connection.execute(
            "UPDATE deliveries SET reason = ? WHERE outcome = 'quarantined'", (evil,)
        )
    for query in ("", str(variant.variant_id), evil):
        text = shown(daemon, query)
        assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
        assert "<script>alert" not in text
        scripts = [attrs for tag, attrs in Tags(text).found if tag == "script"]
        assert scripts == [{"src": "page.js", "defer": None}]


def test_the_page_loads_only_its_own_files(shared: Daemon) -> None:
    """No absolute URL but a link to the Dreamship app, no inline style or handler."""
    for tag, attrs in Tags(shown(shared, "t")).found:
        assert not {"style", *(name for name in attrs if name.startswith("on"))} & set(attrs)
        for name in ("src", "href", "action"):
            if (tag, name, attrs.get(name)) == ("a", "href", APP_URL):
                assert attrs["rel"] == "noreferrer"
                continue
            assert "//" not in (attrs.get(name) or ""), (tag, attrs)
    for name in ("page.js", "page.css"):
        answer = httpx.get(f"{shared.admin_url}/{name}", trust_env=False)
        assert answer.status_code == 200
        assert "//" not in re.sub(r"^\s*//.*$", "", answer.text, flags=re.MULTILINE)


def test_quarantined_deliveries_are_listed_with_a_hint(site: Site) -> None:
    """How to see them, and how to replay them."""
    daemon = site.serve(filled=False)
    for n in range(2):
        assert daemon.post(b'{"event": {"action": "item-variant-x", "n": %d}}' % n).is_success
    text = shown(daemon)
    assert "Deliveries that were not understood: 2</h2>" in text
    output = [html.unescape(one) for one in re.findall(r"<code>(syncd [^<]*)</code>", text)]
    assert {"syncd replay --quarantined", "syncd replay 2"} <= set(output)
    for command in output:
        name, *arguments = command.split()
        assert name == "syncd"
        assert site.syncd(*arguments).returncode in (0, 1), command
    (row, _) = re.findall(r"Delivery (\d+): <bdi>.*names no variant", text)
    assert row == "2"


def test_an_unreadable_mirror_still_gives_a_page() -> None:
    """With the reason and a hint; it refreshes itself."""
    with showing({}) as url:
        answer = httpx.get(f"{url}/", trust_env=False)
    assert answer.status_code == 503
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    assert '<section class="hero red"' in answer.text
    assert "The mirror cannot be read</p>" in answer.text
    assert '<p class="what">No space is left on the disk.</p>' in answer.text
    assert "<dd>Free some.</dd>" in answer.text
    assert 'src="page.js"' in answer.text


@pytest.mark.parametrize("path", ["/page.html", "/../pyproject.toml", "/page/", "/page.css/x"])
def test_only_its_own_files_are_served(shared: Daemon, path: str) -> None:
    """No path leads out of the folder of the page."""
    assert httpx.get(shared.admin_url + path, trust_env=False).status_code == 404


BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def test_the_drift_excludes_the_first_fill(tmp_path: Path) -> None:
    """Oldest sweep first; in the first fill every variant is new."""
    path = tmp_path / "availability.db"
    writer = open_for_writing(path)
    writer.executemany(
        """INSERT INTO sweeps (cause, is_catalogue, began_at, ended_at, result, variants, added,
               changed) VALUES ('schedule', ?, ?, ?, 'complete', ?, ?, ?)""",
        [
            (1, at, at, variants, added, changed)
            for at, variants, added, changed in (
                ("2026-03-01T00:00:00.000000Z", 480, 480, 0),
                ("2026-03-01T06:00:00.000000Z", 484, 4, 7),
                ("2026-03-01T12:00:00.000000Z", 0, 0, 0),
            )
        ],
    )
    with closing(writer):
        drift = day(writer, BEGIN).drift
    assert [(row["at"], row["added"], row["changed"]) for row in drift] == [
        ("2026-03-01T06:00:00.000000Z", 4, 7),
        ("2026-03-01T12:00:00.000000Z", 0, 0),
    ]


def test_the_first_fill_does_not_flatten_the_chart_of_changes(tmp_path: Path) -> None:
    """Added variants count after the end of the first sweep; changes count at once."""
    writer = open_for_writing(tmp_path / "availability.db")

    def changes() -> tuple[int, bool]:
        today = day(writer, BEGIN + timedelta(hours=23))
        return sum(row.get("read", 0) for row in today.changes), today.has_first_fill

    def add(minute: int, before: str | None) -> None:
        writer.execute(
            """INSERT INTO change_log (variant_id, old_availability, availability, old_sellable,
                   sellable, cause, rule, missed, during_downtime, occurred_at, recorded_at)
               VALUES (1, ?1, 'b', 0, 0, 'read', 'settled', 0, 0, ?2, ?2)""",
            (before, f"2026-03-01T10:{minute:02}:00.000000Z"),
        )

    with closing(writer):
        add(0, None)
        assert changes() == (0, True)
        add(1, "a")
        assert changes() == (1, True)
        writer.execute(
            """INSERT INTO sweeps (cause, is_catalogue, began_at, ended_at, result)
               VALUES ('start', 1, '2026-03-01T10:00:00.000000Z', '2026-03-01T10:02:00.000000Z',
                       'complete')"""
        )
        add(3, None)
        assert changes() == (2, True)


def test_a_slow_query_is_cached() -> None:
    """Many viewers do not load a large mirror; a small one is read each time."""
    requested: list[float] = []

    def question(_: Queries, seconds: float = 0.0) -> int:
        time.sleep(seconds)
        requested.append(seconds)
        return len(requested)

    reports: Any = None
    quick, slow = (
        CachedQuery(question),
        CachedQuery(lambda reports: question(reports, 1.5 * QUICK_S)),
    )
    assert [quick.answer(reports), quick.answer(reports)] == [1, 2]
    assert [slow.answer(reports), slow.answer(reports)] == [3, 3]
