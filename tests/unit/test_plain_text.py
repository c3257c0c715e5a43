"""Text of others becomes one line of visible characters, or exact JSON."""

from __future__ import annotations

import unicodedata
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from syncd.core.plain_text import json_text, shortened, visible

# Set the title, clear the screen, a link, an 8-bit CSI, a bell, another line, another column,
# right to left, isolates, no width, a line separator, a tag character; markup; and plain text.
NASTY = (
    *("\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x1b]8;;http://evil/\x1b\\x\x1b]8;;\x1b\\", "\x9b2J"),
    *("\a", "\b", "\n   9  forged", "\r", "\t", "\v", "\0", "\x7f", "\x85", "\x90q\x9c"),
    *("\u202e", "\u202a", "\u2066", "\u2069", "\u200f", "\u061c", "\u200b", "\u200d", "\ufeff"),
    *("\u2028", "\u2029", "\U000e0041", "\xad", "[red]", "[link=http://evil]x[/link]", "[/]"),
    *("Mug", "é", "\N{SKULL}", "\u3000", "日本", "%s {} \\", "`"),
)
TEXT = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


def hidden(text: str) -> set[str]:
    """Return the invisible or control characters of a text, except line ends."""
    return {one for one in text if unicodedata.category(one)[0] == "C" or one in "\u2028\u2029"} - {
        "\n"
    }


# The rules.


@given(TEXT)
def test_shown_text_is_one_visible_line(text: str) -> None:
    """Plain text is unchanged, spaces of other scripts too."""
    shown = visible(text)
    assert not hidden(shown)
    assert "\n" not in shown
    assert visible(shown) == shown
    if not hidden(text) and "\n" not in text:
        assert shown == text
    assert not hidden(visible(repr(text)))


@given(
    st.recursive(TEXT | st.integers(0, 9), lambda one: st.lists(one) | st.dictionaries(TEXT, one))
)
def test_json_is_exact_and_printable(document: Any) -> None:
    """With JSON's own escapes; a reader gets the original text."""
    text = json_text(document)
    assert not hidden(text)
    assert "\n" not in text
    assert json.decode(text) == document
    assert json.decode(json.format(text, indent=2)) == document


def test_a_long_text_says_that_it_is_cut() -> None:
    """And its full length."""
    assert shortened("x" * 30, 30) == "x" * 30
    assert shortened("x" * 31, 30) == f"{'x' * 30}… (31 characters)"
