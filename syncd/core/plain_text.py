r"""Text of others, made fit to be shown: it has bounds, and no character that acts on its reader.

A terminal obeys control characters (clear the screen, set the title, go back over a line), and
bidirectional controls show text in another order than it has. Both are written out, as `\x1b` or
`\u202e`; so are line ends, tabs and characters without any width.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from json import dumps

from msgspec import json, to_builtins

# Of one value in a line of the log, of a command or of the page.
MAX_CHARS = 1000


def visible(text: str) -> str:
    """Return text in one line, with every character written out that is not shown as itself."""
    return _replaced(text, _written_out)


def shortened(text: str, most: int = MAX_CHARS) -> str:
    """Return text of at most so many characters, then how long it is if some are left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def json_text(document: object) -> str:
    """Return a document as JSON that is exact and that a terminal shows as it is.

    JSON itself escapes only the control characters below U+0020.
    """
    try:
        text = json.encode(document).decode()
    except UnicodeEncodeError:
        # The name of a file may have bytes that are no UTF-8: Python has them as lone surrogates.
        text = dumps(to_builtins(document), separators=(",", ":"), ensure_ascii=False)
    # Outside of its strings JSON has none of these.
    return _replaced(text, _json_escape)


def _replaced(text: str, escape: Callable[[str], str]) -> str:
    """Replace the characters that are not shown as themselves; a space of any script is."""
    if text.isprintable():
        return text
    hidden = (one for one in set(text) if not one.isprintable())
    return text.translate(
        {ord(one): escape(one) for one in hidden if unicodedata.category(one) != "Zs"}
    )


def _written_out(one: str) -> str:
    if one < " ":
        return one.encode("unicode_escape").decode()
    # As TOML has it, so that a configuration that is printed can be read.
    return f"\\u{ord(one):04x}" if one <= "\uffff" else f"\\U{ord(one):08x}"


def _json_escape(one: str) -> str:
    if unicodedata.category(one) == "Cs":
        return f"\\\\u{ord(one):04x}"  # no JSON parser takes half a pair: its number is its text
    units = one.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
