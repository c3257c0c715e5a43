"""Prints all results: foreign text reaches a terminal as safe text, in one line.

Names, values and errors may contain any character. They never move the cursor, change colours or
end a line, and long ones are shortened. With `--json` the text is exact, with escapes of JSON.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

import click
from msgspec import json

from syncd.core.plain_text import MAX_CHARS, json_text, shortened, visible

# The longest line with several foreign names; each name has a limit too.
MAX_LINE_CHARS = 10_000
# One less than the narrowest usual terminal: a full line would move the cursor on.
_COLUMNS = 79


class Colored(NamedTuple):
    """A part of a line that has a colour if the terminal shows colours."""

    text: str
    color: str


def show(*parts: str | Colored, err: bool = False, most: int | None = MAX_CHARS) -> None:
    """Print one line on stdout, or on stderr (`err`).

    Each part is shortened to `most` characters; None: not at all, for text that is to be copied.
    """
    line = "".join(
        click.style(_plain(part.text, most), fg=part.color)
        if isinstance(part, Colored)
        else _plain(part, most)
        for part in parts
    )
    click.echo(line, err=err, color=_has_color(is_error=err))


def show_whole(text: str) -> None:
    """Print all lines of a text, indented so that none looks like a line of syncd."""
    for line in text.split("\n"):
        show("    ", line.removesuffix("\r").expandtabs(4), most=None)


def show_json(document: object) -> None:
    """Print one document, indented."""
    click.echo(json.format(json_text(document), indent=2))


def show_json_line(document: object) -> None:
    """Print one document of a feed, at once."""
    click.echo(json_text(document))
    sys.stdout.flush()


def show_prompt(text: str) -> None:
    """Print the beginning of a line on stderr, for an answer."""
    click.echo(visible(text), err=True, nl=False)


class ProgressLine:
    """One line on stderr that is replaced, if stderr is a terminal; else nothing."""

    def __init__(self) -> None:
        self._drawn = ""

    def draw(self, text: str) -> None:
        """Replace the line; empty text removes it."""
        shown = visible(text)[:_COLUMNS]
        if shown == self._drawn or not sys.stderr.isatty():
            return
        # Spaces cover the end of a longer line.
        end = "" if shown else "\r"
        click.echo(f"\r{shown:{len(self._drawn)}}{end}", err=True, nl=False)
        self._drawn = shown


def _plain(text: str, most: int | None) -> str:
    return visible(text if most is None else shortened(text, most))


def _has_color(*, is_error: bool) -> bool:
    """Return whether a stream is a terminal that shows colours."""
    stream = sys.stderr if is_error else sys.stdout
    return stream.isatty() and "NO_COLOR" not in os.environ
