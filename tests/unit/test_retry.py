"""A call that fails is repeated, with a wait after each failure but the last."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from syncd.core.backoff import retry

ATTEMPTS = 3


class _Source:
    """Fails with these errors, one a call, and answers afterwards; records calls and waits."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0
        self.slept: list[float] = []
        self.reported: list[int] = []

    async def call(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "answer"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def run(self) -> str:
        return asyncio.run(
            retry(
                self.call,
                on=(OSError, ValueError),
                attempts=ATTEMPTS,
                wait=lambda attempt, _: timedelta(seconds=10 * attempt),
                sleep=self.sleep,
                on_error=lambda attempt, _: self.reported.append(attempt),
            )
        )


def test_an_answer_ends_the_attempts() -> None:
    source = _Source(OSError(), ValueError())
    assert source.run() == "answer"
    assert (source.calls, source.slept, source.reported) == (3, [10, 20], [1, 2])


def test_a_first_answer_waits_for_nothing() -> None:
    source = _Source()
    assert source.run() == "answer"
    assert (source.calls, source.slept, source.reported) == (1, [], [])


def test_the_last_attempt_raises_its_error_without_a_wait() -> None:
    source = _Source(*[OSError(number) for number in range(ATTEMPTS + 1)])
    with pytest.raises(OSError, match="2"):
        source.run()
    assert (source.calls, source.slept, source.reported) == (3, [10, 20], [1, 2, 3])


def test_another_error_is_not_repeated() -> None:
    source = _Source(KeyError())
    with pytest.raises(KeyError):
        source.run()
    assert (source.calls, source.slept, source.reported) == (1, [], [])
