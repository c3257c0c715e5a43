"""The one place that prints: what others worded reaches a terminal as plain text, in one line.

Names, values and faults may hold anything. Nothing in them moves the cursor, colours or ends a
line, and a long one is cut; with `--json` all of it is exact, in JSON's own escapes.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

import click
from msgspec import json

from syncd.core.plain_text import MAX_CHARS, json_text, shortened, visible

# Of a line of ours that names several things of others, each with a bound of its own.
MAX_LINE_CHARS = 10_000


class Colored(NamedTuple):
    """A part of a line that has a colour where colours are wanted."""

    text: str
    color: str


def show(*parts: str | Colored, err: bool = False, most: int | None = MAX_CHARS) -> None:
    """Print one line on stdout, or on stderr (`err`).

    Each part is cut to `most` characters; None: to none, for text that is to be copied.
    """
    line = "".join(
        click.style(_plain(part.text, most), fg=part.color)
        if isinstance(part, Colored)
        else _plain(part, most)
        for part in parts
    )
    click.echo(line, err=err, color=_has_color(is_error=err))


def show_whole(text: str) -> None:
    """Print text of several lines whole, indented so that none of them looks like one of ours."""
    for line in text.split("\n"):
        show("    ", line.removesuffix("\r").expandtabs(4), most=None)


def show_json(document: object) -> None:
    """Print one document, indented for whoever looks at it."""
    click.echo(json.format(json_text(document), indent=2))


def show_json_line(document: object) -> None:
    """Print one document of a feed, at once."""
    click.echo(json_text(document))
    sys.stdout.flush()


def _plain(text: str, most: int | None) -> str:
    return visible(text if most is None else shortened(text, most))


def _has_color(*, is_error: bool) -> bool:
    """Tell whether a stream is a terminal that wants colour."""
    stream = sys.stderr if is_error else sys.stdout
    return stream.isatty() and "NO_COLOR" not in os.environ
