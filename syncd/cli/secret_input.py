"""Reads pasted text from the terminal without showing it, with all its lines.

`getpass` reads one line: the other lines of a paste would answer the next questions.
"""

from __future__ import annotations

import codecs
import os
import select
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import click

from syncd.printing import show, show_prompt

# The rest of a paste arrives within this time.
_PASTE_S = 0.2
_MAX_CHARS = 65_536
_ERASE = ("\x7f", "\b")
_KILL, _END = "\x15", "\x04"


def read_secret(prompt: str) -> str:
    """Return the typed or pasted text; raises click.Abort at its end (Ctrl-D)."""
    fd = sys.stdin.fileno()
    # The prompt comes second: nothing that is typed after it is shown.
    with _unseen(fd):
        show_prompt(prompt)
        try:
            return _text(fd)
        finally:
            show("", err=True)


def _text(fd: int) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = ""
    while len(text) < _MAX_CHARS:
        is_complete = text.endswith(("\n", "\r"))
        if is_complete and not select.select([fd], [], [], _PASTE_S)[0]:
            break
        piece = os.read(fd, 4096)
        if not piece:
            raise click.Abort
        for character in decoder.decode(piece):
            if character in _ERASE:
                text = text[:-1]
            elif character == _KILL:
                text = ""
            elif character == _END:
                if not text:
                    raise click.Abort
            else:
                text += character
    return text


@contextmanager
def _unseen(fd: int) -> Iterator[None]:
    """Turn off the echo and the line editor of the terminal, whose lines have a limit."""
    before = termios.tcgetattr(fd)
    changed = termios.tcgetattr(fd)
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    # A paste that is already typed ahead belongs to the answer.
    termios.tcsetattr(fd, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        # Input after the answer must not answer the next question.
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
