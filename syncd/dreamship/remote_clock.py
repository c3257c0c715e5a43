"""Dreamship's clock as well as it can be known here: ours, plus what its `Date` headers differ."""

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

# `Date` has whole seconds, cut off: the moment may have been as much later.
_CUT_OFF = timedelta(seconds=1)
# An offset further from the known one than this is a copy's, a mistake, or a clock that was set.
_TOLERANCE = COPY_AGE
# Answers of one clock agree this closely, apart from what their own way took.
_JITTER = timedelta(seconds=2)
# One answer alone is not believed when it puts the two clocks further apart than this.
_PLAUSIBLE = timedelta(days=1)
# The offset of an earlier process came from an answer that took at most so long (and 10 s more).
_LATENCY = timedelta(seconds=21)
_WINDOW = 30
# Answers in a row that agree in another offset before it is believed: a few if nothing speaks
# against it or one resource was read twice among them, and its `Date` moved as time did. That
# movement proves no new answer where dates are wild: an offset of days or years needs many, once
# answers have shown this process a plausible one.
_FEW = 3
_MANY = 24


class _Sample(Struct, frozen=True):
    """The smallest and the largest offset that one answer allows; of a copy, only the smallest."""

    low: timedelta
    high: timedelta

    def agrees(self, other: _Sample, tolerance: timedelta) -> bool:
        return self.low <= other.high + tolerance and self.high >= other.low - tolerance


class _Run(Struct):
    """Answers in a row that agree with each other, and not with the known offset."""

    bounds: _Sample
    count: int = 1
    arrived_at: dict[Hashable, datetime] = field(default_factory=dict)
    is_live: bool = False


class RemoteClock:
    """Estimates Dreamship's present moment; `offset` survives restarts in the mirror.

    The latest that is possible: an answer may have been stamped as soon as its request left. Too
    late an estimate lets an event pass that claims to be some seconds ahead, which a read confirms;
    too early a one would doubt honest events whenever answers are slow.

    A copy from a cache has an old `Date`, and one broken answer may have any. So an offset that is
    known moves only by answers that agree with it, or by several in a row that agree with each
    other.
    """

    def __init__(self, clock: Clock, offset: timedelta = timedelta()) -> None:
        self._clock = clock
        # Answers that were believed; more of them than before mean that the offset is of today.
        self.answers = 0
        self._is_known = bool(offset)
        self.offset = offset
        self._lows: deque[timedelta] = deque(maxlen=_WINDOW)
        self._agreed = 0
        if self._is_known:
            self._lows.append(offset - _LATENCY)
            # Days apart the clocks may be, after this host's was set; or it is an old mistake.
            self._agreed = _FEW if abs(offset) <= _PLAUSIBLE else 0
        self._run: _Run | None = None

    def now(self) -> datetime:
        """Return Dreamship's moment at the latest; this host's when nothing is known."""
        return self._clock.now() + self.offset

    def follow(self, jump: Jump) -> None:
        """Go on with the same estimate when this host's clock jumps."""
        self.offset -= jump.shift
        self._lows = deque((low - jump.shift for low in self._lows), maxlen=_WINDOW)
        self._run = None

    def placed(self, answer: Answer, resource: Hashable) -> Answer:
        """Return an answer that has just arrived as a read that began when its content was made.

        Its `age` is then the age of the content, and `source_at` is None when its `Date` cannot be
        right. `resource` says what was asked for. Learns from the `Date`, unless it is a copy's.
        """
        date, began_at, now = answer.source_at, answer.began_at, self._clock.now()
        if answer.age >= COPY_AGE:
            return _older(answer, answer.age, self._date_of_copy(answer))
        if date is None or now < began_at:
            return _older(answer, answer.age, None)
        sample = _Sample(date - now, date + _CUT_OFF - began_at)
        if self._agrees(sample):
            self._lows.append(sample.low)
            # A copy of some seconds has too small a `high`; no answer has too large a `low`.
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
        """Return when a copy was made by Dreamship's clock; proxies may write a `Date` of now."""
        made_at = answer.began_at + self.offset - answer.age
        return None if answer.source_at is None else min(answer.source_at, made_at)

    def _agrees(self, sample: _Sample) -> bool:
        if self._is_known:
            return sample.agrees(_Sample(max(self._lows), self.offset), _TOLERANCE)
        return max(abs(sample.low), abs(sample.high)) <= _PLAUSIBLE

    def _is_confirmed(
        self, sample: _Sample, resource: Hashable, began_at: datetime, now: datetime
    ) -> bool:
        """Note an answer that disagrees; tell whether enough in a row agree with it."""
        run = self._run
        if run is None or not sample.agrees(run.bounds, _JITTER):
            self._run = _Run(sample, arrived_at={resource: now})
            return False
        run.count += 1
        run.bounds = _Sample(max(run.bounds.low, sample.low), min(run.bounds.high, sample.high))
        # A copy has the same `Date` each time: after this it would no longer agree.
        before = run.arrived_at.setdefault(resource, now)
        run.is_live |= began_at > before + _CUT_OFF + _JITTER
        # Copies made at one time agree as well, in an earlier time; one answer speaks against them.
        speaks_against = 0 if self._is_older(sample) else _FEW - 1
        is_enough = self._agreed <= speaks_against or run.is_live
        return run.count >= (_FEW if is_enough and not self._is_far(sample) else _MANY)

    def _is_older(self, sample: _Sample) -> bool:
        """Tell whether an answer is older than any of now, as far as that is known."""
        return self._is_known and sample.high < max(self._lows)

    def _is_far(self, sample: _Sample) -> bool:
        """Tell whether an answer leaves the plausible offset that earlier ones have shown."""
        return self.answers > 0 and abs(self.offset) <= _PLAUSIBLE < abs(sample.high)

    def _adopt(self, sample: _Sample) -> None:
        log.warning(
            "answers agree in another time of Dreamship's clock",
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
