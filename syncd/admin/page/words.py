"""Parts of the page that contain moments, code or a search: as HTML, with each text escaped."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

from markupsafe import Markup, escape

from syncd.core import relative_time
from syncd.core.explain import REASONS
from syncd.core.health import APP_URL
from syncd.core.plain_text import shortened, visible
from syncd.core.timestamps import to_text


def reason_text(reason: str) -> str:
    """Return why a SKU or a variant is not sold, in a few words."""
    return REASONS[reason].short


def ago(moment: str, now: str) -> Markup:
    """Return a `time` element: the age of a moment, with the exact moment as its title."""
    return _time(moment, "ago", relative_time.ago(moment, now))


def at(moment: str | datetime) -> Markup:
    """Return a `time` element: a moment in minutes. The script shows it in the reader's zone."""
    text = moment if isinstance(moment, str) else to_text(moment)
    return _time(text, "at", f"{text[:16].replace('T', ' ')} UTC")


def hour(moment: str) -> Markup:
    """Return a `time` element: a moment of the day."""
    return _time(moment, "hour", moment[11:16])


def search_link(text: str) -> Markup:
    """Return the address of a search, which is never shortened."""
    # Quoted text has no character that HTML treats in a special way.
    return Markup("?q=" + quote(text, safe="", errors="replace"))  # noqa: S704 - quoted


def foreign(text: object, most: int = 200) -> Markup:
    """Return text of others: it is cut, and its direction does not affect the text around it."""
    return Markup("<bdi>{}</bdi>").format(visible(shortened(str(text), most)))


def sentence(text: str) -> Markup:
    """Escape a text, mark the parts in backticks as code, and show its moments.

    The text begins with a capital letter and ends with a full stop.
    """
    if not text:
        return Markup()
    parts = [
        Markup("<code>{}</code>").format(visible(part)) if index % 2 else _with_moments(part)
        for index, part in enumerate(_capital(text).split("`"))
    ]
    end = "" if text.endswith((".", "?", "!")) else "."
    return Markup().join([*parts, Markup(end)])  # noqa: S704 - a constant


def _with_moments(text: str) -> Markup:
    parts = relative_time.split_moments(text)
    return Markup().join(
        at(part) if index % 2 else _with_link(part) for index, part in enumerate(parts)
    )


def _with_link(text: str) -> Markup:
    """Link the one address to which a problem leads; any other address stays text."""
    link = Markup('<a href="{}" rel="noreferrer">Dreamship app</a>').format(APP_URL)
    parts = text.split(f"Dreamship app ({APP_URL})")
    return link.join(escape(visible(part)) for part in parts)


def _capital(text: str) -> str:
    # A name of a program keeps its small letter.
    return text if text.startswith("syncd ") else text[:1].upper() + text[1:]


def _time(moment: str, form: str, text: str) -> Markup:
    return Markup('<time datetime="{}" title="{}" data-form="{}">{}</time>').format(
        moment, relative_time.exact(moment), form, text
    )
