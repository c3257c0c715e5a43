r"""Makes foreign text safe to show: limits its length and escapes control characters.

A terminal obeys control characters (clear the screen, set the title, move the cursor), and
bidirectional controls change the order in which text is shown. Both are escaped, as `\x1b` or
`\u202e`; so are line ends, tabs and characters without a width.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from json import dumps

from msgspec import json, to_builtins

# The longest value in a line of the log, of a command or of the page.
MAX_CHARS = 1000


def visible(text: str) -> str:
    """Return text in one line, with every character escaped that a terminal does not show."""
    return _replaced(text, _escaped)


def shortened(text: str, most: int = MAX_CHARS) -> str:
    """Return text of at most `most` characters; a shortened text ends with its full length."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def json_text(document: object) -> str:
    """Return a document as exact JSON that is safe to show on a terminal.

    JSON itself escapes only the control characters below U+0020.
    """
    try:
        text = json.encode(document).decode()
    except UnicodeEncodeError:
        # The name of a file may have bytes that are no UTF-8: Python has lone surrogates for them.
        text = dumps(to_builtins(document), separators=(",", ":"), ensure_ascii=False)
    # JSON has such characters only inside of its strings.
    return _replaced(text, _json_escape)


def _replaced(text: str, escape: Callable[[str], str]) -> str:
    """Escape the characters that a terminal does not show; spaces of any script stay."""
    if text.isprintable():
        return text
    hidden = (one for one in set(text) if not one.isprintable())
    return text.translate(
        {ord(one): escape(one) for one in hidden if unicodedata.category(one) != "Zs"}
    )


def _escaped(one: str) -> str:
    if one < " ":
        return one.encode("unicode_escape").decode()
    # The form of TOML, so that a printed configuration can be read again.
    return f"\\u{ord(one):04x}" if one <= "\uffff" else f"\\U{ord(one):08x}"


def _json_escape(one: str) -> str:
    if unicodedata.category(one) == "Cs":
        return f"\\\\u{ord(one):04x}"  # no JSON parser accepts half of a surrogate pair
    units = one.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
