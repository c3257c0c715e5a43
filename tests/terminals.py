"""A program on a real terminal: its output, and the input of a person."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# The terminal becomes that of the new session, so that Ctrl-C is a signal.
_TAKE = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """The other end of the terminal of one process."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self._fd = fd
        self.shown = ""
        self._seen = 0

    def read_until(self, text: str, within_s: float = 30.0) -> str:
        """Return the output up to `text`; fail if the text does not appear."""
        deadline_s = time.monotonic() + within_s
        while text not in self.shown[self._seen :]:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"no {text!r} in: {self.shown[self._seen :]}"
            assert self._read(left_s), f"ended without {text!r}: {self.shown}"
        end = self.shown.index(text, self._seen) + len(text)
        found, self._seen = self.shown[self._seen : end], end
        return found

    def type(self, text: str) -> None:
        """Type a text; a newline is Enter."""
        os.write(self._fd, text.encode())

    def answer(self, question: str, text: str) -> None:
        """Wait for a question, and type an answer and Enter."""
        self.read_until(question)
        self.type(f"{text}\n")

    def has_echo(self) -> bool:
        """Return whether the terminal shows typed text."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    def end(self, within_s: float = 30.0) -> int:
        """Read to the end, and return the exit code."""
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s and self._read(1.0):
            pass
        return self.process.wait(within_s)

    def _read(self, within_s: float) -> bool:
        """Read the available output; returns False at the end."""
        if not select.select([self._fd], [], [], min(within_s, 1.0))[0]:
            return self.process.poll() is None
        try:
            piece = os.read(self._fd, 65_536)
        except OSError:
            return False  # the process has closed its end
        self.shown += piece.decode(errors="replace")
        return bool(piece)


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str], *, cwd: Path, environ: Mapping[str, str]
) -> Iterator[Terminal]:
    """Run a command on a terminal of 80 columns; ends it afterwards."""
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _TAKE, *command],
            cwd=cwd,
            env={**environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
