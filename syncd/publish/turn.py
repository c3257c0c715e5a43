"""Whether this daemon is active, or waits while the daemon of another host is active."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

TurnState = Literal["undecided", "waiting", "copying", "active"]


class Turn:
    """The state that the thread of the publisher decides, and that the event loop reads.

    `undecided`: the lease is not known, after the start or after a pause of the process.
    `copying`: this daemon has the lease, and its mirror gets the rows of the target. Only an
    `active` daemon takes deliveries. Without a target, a daemon is always active.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._decided = threading.Event()
        self._decided.set()
        self._state: TurnState = "active"

    @property
    def state(self) -> TurnState:
        """The state now."""
        return self._state

    @property
    def is_active(self) -> bool:
        """Whether deliveries are taken."""
        return self._state == "active"

    def until_decided(self, limit_s: float) -> None:
        """Return once the turn is decided, or after `limit_s`."""
        self._decided.wait(limit_s)

    def doubt(self) -> bool:
        """Wait until the lease is known, if the daemon is active; return whether it was active."""
        return self._change("undecided", only=("active",))

    def reopen(self) -> None:
        """Decide the turn of a waiting daemon again: its configuration let it wait."""
        self._change("undecided", only=("waiting", "copying"))

    def serve(self) -> None:
        """Take deliveries from now on."""
        self._change("active", only=("undecided", "waiting", "copying"))

    def serve_unless_decided(self) -> bool:
        """Take deliveries although the lease is not known; return whether that is new."""
        return self._change("active", only=("undecided",))

    def wait(self) -> None:
        """Take no more deliveries: another daemon has the lease."""
        self._change("waiting", only=("undecided", "copying", "active"))

    def begin_copy(self) -> bool:
        """Begin to copy; return False if the daemon takes deliveries, which a copy would undo."""
        return self._change("copying", only=("undecided", "waiting", "copying"))

    def _change(self, state: TurnState, only: tuple[TurnState, ...]) -> bool:
        with self._lock:
            if self._state not in only:
                return False
            self._state = state
            if state == "undecided":
                self._decided.clear()
            else:
                self._decided.set()
        self.on_change()
        return True
