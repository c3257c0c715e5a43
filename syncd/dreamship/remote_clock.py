"""Estimates Dreamship's clock: this host's clock plus an offset from the `Date` headers."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from syncd.clock import Clock
from syncd.core.clock_jump import Jump
from syncd.core.model import ItemRead, Page
from syncd.core.read_age import COPY_AGE

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer", ItemRead, Page)

# `Date` has whole seconds, rounded down: the real time may be this much later.
_DATE_RESOLUTION = timedelta(seconds=1)
# If an offset differs from the known one by more, the answer is a copy or wrong, or a clock was
# set.
_TOLERANCE = COPY_AGE
# Answers by one clock agree this closely, apart from their latency.
_JITTER = timedelta(seconds=2)
# A larger offset is not accepted from one answer alone.
_PLAUSIBLE = timedelta(days=1)
# The assumed latency of the answer behind the offset of an earlier process (and 10 s more).
_LATENCY = timedelta(seconds=21)
_WINDOW = 30
# Answers in a row that must agree on another offset before it is accepted. A few are enough if no
# evidence contradicts them, or if one resource was read twice among them and its `Date` advanced
# with time. An offset of days or years needs many, once this process has had a plausible offset:
# such dates may advance without being right.
_FEW = 3
_MANY = 24


class _Sample(Struct, frozen=True):
    """The smallest and largest possible offset by one answer; a copy bounds only the smallest."""

    low: timedelta
    high: timedelta

    def agrees(self, other: _Sample, tolerance: timedelta) -> bool:
        return self.low <= other.high + tolerance and self.high >= other.low - tolerance


class _Run(Struct):
    """Answers in a row that agree with each other, but not with the known offset."""

    bounds: _Sample
    count: int = 1
    arrived_at: dict[Hashable, datetime] = field(default_factory=dict)
    is_live: bool = False


class RemoteClock:
    """Estimates the present time of Dreamship's clock; the mirror stores `offset`.

    The estimate is the latest possible time: Dreamship may write the `Date` as soon as the request
    leaves. An estimate that is too late accepts an event some seconds in the future, and a read
    confirms it. An estimate that is too early would reject true events while answers are slow.

    A copy from a cache has an old `Date`, and a broken answer may have any. So a known offset only
    changes by answers that agree with it, or by several in a row that agree with each other.
    """

    def __init__(self, clock: Clock, offset: timedelta = timedelta()) -> None:
        self._clock = clock
        # The number of accepted answers. If it has grown, the offset is up to date.
        self.answers = 0
        self._is_known = bool(offset)
        self.offset = offset
        self._lows: deque[timedelta] = deque(maxlen=_WINDOW)
        self._agreed = 0
        if self._is_known:
            self._lows.append(offset - _LATENCY)
            # A stored offset of days is real if this host's clock was set; or it is an old error.
            self._agreed = _FEW if abs(offset) <= _PLAUSIBLE else 0
        self._run: _Run | None = None

    def now(self) -> datetime:
        """Return the latest possible time of Dreamship's clock; first this host's time."""
        return self._clock.now() + self.offset

    def follow(self, jump: Jump) -> None:
        """Keep the estimate of Dreamship's clock when this host's clock jumps."""
        self.offset -= jump.shift
        self._lows = deque((low - jump.shift for low in self._lows), maxlen=_WINDOW)
        self._run = None

    def placed(self, answer: Answer, resource: Hashable) -> Answer:
        """Return a new answer as a read that began when its content was made.

        Its `age` is then the age of the content, and `source_at` is None if its `Date` cannot be
        right. `resource` identifies the request. The `Date` of an answer improves the estimate,
        unless the answer is a copy.
        """
        date, began_at, now = answer.source_at, answer.began_at, self._clock.now()
        if answer.age >= COPY_AGE:
            return _older(answer, answer.age, self._date_of_copy(answer))
        if date is None or now < began_at:
            return _older(answer, answer.age, None)
        sample = _Sample(date - now, date + _DATE_RESOLUTION - began_at)
        if self._agrees(sample):
            self._lows.append(sample.low)
            # A copy that is some seconds old has a `high` that is too small; each `low` is right.
            self.offset = max(sample.high, *self._lows)
            self._is_known, self._agreed, self._run = True, self._agreed + 1, None
            self.answers += 1
        elif self._is_confirmed(sample, resource, began_at, now):
            self._adopt(sample)
        elif self._is_older(sample):
            return _older(answer, max(answer.age, self.offset - (date - began_at)), date)
        else:
            date = None
        return _older(answer, answer.age, date)

    def _date_of_copy(self, answer: Answer) -> datetime | None:
        """Return when a copy was made, by Dreamship's clock; a proxy may write a new `Date`."""
        made_at = answer.began_at + self.offset - answer.age
        return None if answer.source_at is None else min(answer.source_at, made_at)

    def _agrees(self, sample: _Sample) -> bool:
        if self._is_known:
            return sample.agrees(_Sample(max(self._lows), self.offset), _TOLERANCE)
        return max(abs(sample.low), abs(sample.high)) <= _PLAUSIBLE

    def _is_confirmed(
        self, sample: _Sample, resource: Hashable, began_at: datetime, now: datetime
    ) -> bool:
        """Add an answer that disagrees; return whether enough in a row agree with it."""
        run = self._run
        if run is None or not sample.agrees(run.bounds, _JITTER):
            self._run = _Run(sample, arrived_at={resource: now})
            return False
        run.count += 1
        run.bounds = _Sample(max(run.bounds.low, sample.low), min(run.bounds.high, sample.high))
        # A copy has the same `Date` each time, so after this time it no longer agrees.
        before = run.arrived_at.setdefault(resource, now)
        run.is_live |= began_at > before + _DATE_RESOLUTION + _JITTER
        # Copies of one time agree too, on an earlier time; one other answer is evidence against
        # them.
        opposing = 0 if self._is_older(sample) else _FEW - 1
        is_enough = self._agreed <= opposing or run.is_live
        return run.count >= (_FEW if is_enough and not self._is_far(sample) else _MANY)

    def _is_older(self, sample: _Sample) -> bool:
        """Return whether an answer is older than any new answer can be, by the known offset."""
        return self._is_known and sample.high < max(self._lows)

    def _is_far(self, sample: _Sample) -> bool:
        """Return whether an answer contradicts the plausible offset of earlier answers."""
        return self.answers > 0 and abs(self.offset) <= _PLAUSIBLE < abs(sample.high)

    def _adopt(self, sample: _Sample) -> None:
        log.warning(
            "answers agree on another time of Dreamship's clock",
            before_s=self.offset.total_seconds(),
            now_s=sample.high.total_seconds(),
        )
        self.offset, self._is_known, self._agreed, self._run = sample.high, True, _FEW, None
        self._lows = deque([sample.low], maxlen=_WINDOW)
        self.answers += 1


def _older(answer: Answer, age: timedelta, source_at: datetime | None) -> Answer:
    if not age and source_at == answer.source_at:
        return answer
    return replace(answer, began_at=answer.began_at - age, source_at=source_at, age=age)
