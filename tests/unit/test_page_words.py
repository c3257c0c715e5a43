"""Words of the status page: ages, reasons and links."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.admin.page.words import ago, at, foreign, reason_text, search_link, sentence
from syncd.core.health import APP_URL
from syncd.core.listings import MAX_SKU_CHARS
from syncd.core.timestamps import to_text
from syncd.store.listings import REASONS

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=-90), "less than a minute ago"),
        (timedelta(seconds=59), "less than a minute ago"),
        (timedelta(seconds=60), "1 minute ago"),
        (timedelta(minutes=12, seconds=59), "12 minutes ago"),
        (timedelta(minutes=119), "119 minutes ago"),
        (timedelta(hours=2), "2 hours ago"),
        (timedelta(hours=47, minutes=59), "47 hours ago"),
        (timedelta(days=2), "2 days ago"),
        (timedelta(days=400), "400 days ago"),
    ],
)
def test_an_age_has_its_exact_moment(age: timedelta, text: str) -> None:
    """For the reader as a title, for programs as an attribute."""
    moment = to_text(NOW - age)
    title = f"{moment[:10]} {moment[11:19]} UTC"
    element = f'<time datetime="{moment}" title="{title}" data-form="ago">{text}</time>'
    assert str(ago(moment, to_text(NOW))) == element


def test_every_reason_of_the_views_has_words() -> None:
    """The same as `syncd listings`."""
    assert all(reason_text(reason) for reason in REASONS)
    assert reason_text("unknown") == "leads to no variant"


def test_a_sentence_has_code_and_moments() -> None:
    """It begins with a capital letter, ends with a full stop, and everything in it is escaped."""
    moment = to_text(NOW)
    assert sentence("") == ""
    assert sentence("run `a <b>` now") == "Run <code>a &lt;b&gt;</code> now."
    assert sentence(f"until {moment}; then <i>") == f"Until {at(moment)}; then &lt;i&gt;."
    assert 'data-form="at">2026-03-03 12:00 UTC</time>' in at(moment)
    assert sentence("syncd tries again.") == "syncd tries again."
    link = f'<a href="{APP_URL}" rel="noreferrer">Dreamship app</a>'
    assert sentence(f"use the Dreamship app ({APP_URL}).") == f"Use the {link}."
    assert "<a" not in sentence(f"https://elsewhere.example/ or {APP_URL}")
    assert sentence("`x` does it") == "<code>x</code> does it."


def test_the_direction_of_foreign_text_ends_with_the_text() -> None:
    """Also if it contains characters that change the direction, and if it is very long."""
    assert foreign("\u05d0 <b>") == "<bdi>\u05d0 &lt;b&gt;</bdi>"
    assert foreign("\u202e") == "<bdi>\\u202e</bdi>"
    assert foreign("x" * 300, 5) == "<bdi>xxxxx… (300 characters)</bdi>"


@given(st.text(min_size=1, max_size=MAX_SKU_CHARS))
def test_a_link_leads_to_its_text(text: str) -> None:
    """With any length and any characters."""
    link = str(search_link(text))
    assert unescape(link) == link
    assert not set(link) & set("<>\"'& ")
    is_valid = not any("\ud800" <= one <= "\udfff" for one in text)
    if is_valid:
        assert parse_qs(link[1:], keep_blank_values=True) == {"q": [text]}
