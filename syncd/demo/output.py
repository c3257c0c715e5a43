"""The output of the demo: live on a terminal, otherwise in plain lines."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from syncd.demo.frame import frame
from syncd.demo.state import DemoState, story
from syncd.printing import show

PLAIN_EVERY_S = 2.0
# A demo without an end may run for days with its output in a file.
ENDLESS_EVERY_S = 60.0
_DEFAULT_SIZE = ConsoleDimensions(80, 24)


def is_live() -> bool:
    """Return whether stderr can show a picture that changes.

    Services that run tests often have a terminal, but store each picture as new lines.
    """
    is_dumb = os.environ.get("TERM", "dumb") in {"dumb", "unknown", ""}
    return sys.stderr.isatty() and not is_dumb and not os.environ.get("CI")


class PlainOutput:
    """One line at the beginning of a phase, one every two seconds, and the story."""

    def __init__(self) -> None:
        self._phase = ""
        self._shown_s = 0.0
        self._shown_titles: set[str] = set()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing; there is nothing to restore."""

    def __call__(self, state: DemoState) -> None:
        """Print a line if a phase has begun, if a part of the story is complete, or in time."""
        every_s = ENDLESS_EVERY_S if state.phase == "running" else PLAIN_EVERY_S
        for sentence in story(state):
            if not sentence.is_final:
                break
            if sentence.title not in self._shown_titles:
                self._shown_titles.add(sentence.title)
                _show_at(state, f"{sentence.title.upper()}: {sentence.text}")
        if state.phase != self._phase:
            self._phase = state.phase
            if state.explanation:
                _show_at(state, f"{state.phase}: {state.explanation}")
        elif state.elapsed_s - self._shown_s >= every_s:
            self._shown_s = state.elapsed_s
            _show_at(state, f"  {_line(state)}")

    def print_last(self, room: int) -> None:
        """Do nothing; all lines are still there."""


class LiveOutput:
    """Draws each state over the previous one, on the alternate screen of the terminal.

    So the picture stays whole while the size of the terminal changes. `print_last` leaves the last
    one on the usual screen.
    """

    def __init__(self) -> None:
        self._console = Console(
            stderr=True, force_terminal=True, force_interactive=True, highlight=False
        )
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._last: DemoState | None = None

    def __enter__(self) -> Self:
        """Change to the other screen."""
        self._resize()
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Return to the usual screen."""
        del kind, error, trace
        self._live.stop()

    def __call__(self, state: DemoState) -> None:
        """Draw a state in the size that the terminal has now."""
        self._last = state
        size = self._resize()
        self._live.update(Group(*self._frame(state, *size)), refresh=True)

    def print_last(self, room: int) -> None:
        """Print the last picture; `room`: the lines below it that must fit the screen too."""
        if self._last is None:
            return
        width, height = self._resize()
        for line in self._frame(self._last, width, max(height - room, 1)):
            self._console.print(line, no_wrap=True)

    def _frame(self, state: DemoState, width: int, height: int) -> list[Text]:
        return frame(state, width, height, encoding=self._console.encoding)

    def _resize(self) -> ConsoleDimensions:
        # $COLUMNS and $LINES, which rich would prefer, stay as they were when a window is resized.
        size = _terminal_size()
        self._console.size = size
        return size


def _terminal_size() -> ConsoleDimensions:
    """Return the size of the terminal at stderr; a serial line has none and has to name it."""
    try:
        width, height = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        width = height = 0
    named = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    width = width or int(named[0] if named[0].isdecimal() else 0)
    height = height or int(named[1] if named[1].isdecimal() else 0)
    return ConsoleDimensions(width or _DEFAULT_SIZE.width, height or _DEFAULT_SIZE.height)


def _show_at(state: DemoState, text: str) -> None:
    show(f"[{state.elapsed_s:5.1f} s] {text}", err=True)


def _line(state: DemoState) -> str:
    mirror = state.comparison
    differences = "-" if mirror is None else f"{mirror.differences} of {mirror.variants} differ"
    target = f"; target: {state.target}" if state.target else ""
    return (
        f"{differences}{target}; Dreamship: {state.flipped} changes, {state.doubled} sent twice; "
        f"deliveries: {state.sent} arrived, {state.in_flight} on the way, {state.lost} lost"
    )
