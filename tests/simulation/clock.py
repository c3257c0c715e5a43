"""Virtual time: if no task is ready, the clock of the loop jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class _Jumping(selectors.BaseSelector):
    """A selector that does not wait: a wait is a jump of the clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("no task is ready, and no timer is set")
        self.now_s += max(0.0, timeout)
        return []

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return self._keys


class Inline(Executor):
    """Runs each function at once, in the calling thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future passes it on
            future.set_exception(error)
        return future


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop without threads, sockets and waits, with the same order in each run."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9
        self._inline = Inline()

    def time(self) -> float:
        return self._jumping.now_s

    def run_in_executor(  # type: ignore[override]  # its stub has one TypeVar too many
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        done = (executor or self._inline).submit(func, *args)
        future: asyncio.Future[T] = self.create_future()
        if done.cancelled():
            future.cancel()
        elif (error := done.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result())
        return future

    def _write_to_self(self) -> None:
        """Do nothing: there is no other thread to wake."""


class Clock:
    """A clock with an error of `offset`: of this host, of Dreamship, or without error.

    It implements syncd.clock.RawClock. `stolen_s`: how long the virtual machine did not run.
    """

    boot_id = "the only one"

    def __init__(self, offset: timedelta = timedelta()) -> None:
        self.offset = offset
        self.stolen_s = 0.0

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=asyncio.get_running_loop().time()) + self.offset

    def wall(self) -> datetime:
        return self.now()

    def elapsed_s(self) -> float:
        return asyncio.get_running_loop().time() - self.stolen_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
