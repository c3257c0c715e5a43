"""Waits between attempts: exponential backoff with jitter, and the loop that repeats a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def backoff(attempt: int, chance: float, *, base_s: float = 0.5, cap_s: float = 300) -> timedelta:
    """Return the wait after failed attempt number `attempt`, which counts from 1.

    The wait doubles with each attempt, up to `cap_s`. The caller draws `chance`, the factor of the
    jitter: from [0, 1) for full jitter, or 1 for none.
    """
    return timedelta(seconds=chance * min(cap_s, base_s * 2.0 ** min(attempt, 30)))


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: tuple[type[E], ...],
    attempts: int,
    wait: Callable[[int, E], timedelta],
    sleep: Callable[[float], Awaitable[None]],
    on_error: Callable[[int, E], None] = lambda _attempt, _error: None,
) -> T:
    """Return the result of `call`; repeat it after an error of the kind `on`.

    The last attempt raises its error. `on_error` receives the number and the error of each failed
    attempt; `wait` receives them too, and returns the pause before the next attempt.
    """
    attempt = 1
    while True:
        try:
            return await call()
        except on as error:
            on_error(attempt, error)
            if attempt >= attempts:
                raise
            pause = wait(attempt, error)
        await sleep(pause.total_seconds())
        attempt += 1
