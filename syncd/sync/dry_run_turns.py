"""Dry runs wait for their turn among the calls of the daemon."""

from __future__ import annotations

import asyncio
import contextlib

from syncd.errors import SyncdError


class DryRunTurns:
    """The dry runs that wait for a call, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def has_waiting(self) -> bool:
        """Whether a dry run waits."""
        return any(not turn.done() for turn in self._waiting)

    async def wait(self) -> None:
        """Return when a call may leave; raises the error of `refuse`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)

    def give(self) -> None:
        """Let the first dry run make its call; if it has ended, the call stays unused."""
        turn = next((one for one in self._waiting if not one.done()), None)
        if turn is not None:
            turn.set_result(None)

    def refuse(self, error: SyncdError) -> None:
        """Raise an error in each dry run that waits."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(error)
