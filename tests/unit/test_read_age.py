"""How old an answer is by its headers, and what its `Date` says about Dreamship's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.clock_jump import Jump
from syncd.core.merge import ValueState, on_delivery
from syncd.core.model import ItemRead
from syncd.core.rate_limit import start
from syncd.core.read_age import (
    COPY_AGE,
    LONGEST_AGE,
    NO_EVIDENCE_AGE,
    UNKNOWN_AGE,
    ContentAge,
    content_age,
)
from syncd.demo.fake_dreamship.faults import http_date
from syncd.dreamship.remote_clock import RemoteClock
from syncd.store import Database
from syncd.sync.cached_answers import LONGEST, CachedAnswers
from syncd.sync.rate_limiter import RateLimiter

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def age_of(*headers: tuple[str, str]) -> ContentAge:
    return content_age(
        lambda name: [value for key, value in headers if key.lower() == name.lower()]
    )


class HandClock:
    """A host's clock that is set by hand."""

    def __init__(self) -> None:
        self.moment = NOW

    def now(self) -> datetime:
        return self.moment

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class Host:
    """A host, and a Dreamship with a clock that is `ahead` of the host's clock."""

    def __init__(self, offset: timedelta = timedelta(), *, ahead: timedelta = timedelta()) -> None:
        self.clock = HandClock()
        self.source = RemoteClock(self.clock, offset)
        self.ahead = ahead

    def read(
        self,
        resource: int = 1,
        *,
        made: timedelta = timedelta(),
        wrong: timedelta = timedelta(),
        age: timedelta = timedelta(),
    ) -> ItemRead:
        """Read an item, `made` ago, with a `Date` that is `wrong`; a second passes each time."""
        began_at = self.clock.moment
        self.clock.moment += SECOND / 5
        date = (began_at - made + self.ahead + wrong).replace(microsecond=0)
        answer = self.source.placed(ItemRead(resource, None, (), began_at, date, age=age), resource)
        self.clock.moment += SECOND * 4 / 5
        return answer

    @property
    def error(self) -> timedelta:
        return self.source.offset - self.ahead


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("240", 241), ("3, 240", 241), ('"7"', 8), ("12.9", 13), (" 5 ", 6)],
)
def test_the_age_header_plus_a_second_is_the_age(value: str, seconds: int) -> None:
    """Ages are rounded down, so a second is added; zero is a new answer."""
    assert age_of(("Age", value)).age == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["-5", "soon", "", "1e9", "٣", "0x10", "240s", "+3"])
def test_an_invalid_age_header_is_ignored(value: str) -> None:
    """It never makes an answer old."""
    assert age_of(("Age", value)) == ContentAge()


def test_the_largest_of_several_ages_counts() -> None:
    """Two caches in a row may each add a header."""
    assert age_of(("Age", "3"), ("Age", "junk"), ("Age", "90")).age == timedelta(seconds=91)


def test_a_huge_age_is_still_an_age() -> None:
    """No number is too long to be parsed or subtracted from a time."""
    age = age_of(("Age", "9" * 400)).age
    assert NO_EVIDENCE_AGE < age <= LONGEST_AGE + SECOND
    assert NOW - age < NOW


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "Age",
                    "Date",
                    "Expires",
                    "Cache-Control",
                    "Warning",
                    "X-Cache",
                    "Cache-Status",
                    "CF-Cache-Status",
                ]
            ),
            st.text(max_size=40),
        )
    )
)
def test_any_headers_give_a_plausible_age(headers: list[tuple[str, str]]) -> None:
    """With any headers."""
    answer = age_of(*headers)
    assert timedelta() <= answer.age <= LONGEST_AGE + SECOND
    assert answer.fresh_for is None or answer.fresh_for >= timedelta()


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_age_and_remaining_lifetime_add_up(age: int, lifetime: int) -> None:
    """A cache may return the same answer until its lifetime is over."""
    answer = age_of(("Age", str(age)), ("Cache-Control", f"public, max-age={lifetime}"))
    if answer.fresh_for is not None:
        assert answer.fresh_for == max(
            timedelta(), min(LONGEST_AGE, timedelta(seconds=lifetime)) - answer.age
        )


@pytest.mark.parametrize(
    "header",
    [
        ("X-Cache", "HIT"),
        ("X-Cache", "Hit from cloudfront"),
        ("X-Cache", "TCP_MEM_HIT from a23 (AkamaiGHost)"),
        ("X-Cache", "TCP_REFRESH_FAIL_HIT"),
        ("X-Cache", "MISS, HIT"),
        ("X-Cache", "hit-stale"),
        ("X-Cache-Status", "STALE"),
        ("X-Cache-Status", "UPDATING"),
        ("CF-Cache-Status", "HIT"),
        ("Cache-Status", 'ExampleCache; hit; ttl=376, "other"; fwd=miss'),
        ("Warning", '110 proxy "Response is Stale"'),
        ("Warning", '112 - "Disconnected Operation"'),
    ],
)
def test_a_cache_hit_without_an_age_has_an_unknown_age(header: tuple[str, str]) -> None:
    """Such a copy confirms nothing."""
    assert age_of(header) == ContentAge(UNKNOWN_AGE)
    assert age_of(header, ("Age", "0")) == ContentAge()


@pytest.mark.parametrize(
    "header",
    [
        ("X-Cache", "MISS"),
        ("X-Cache", "Miss from hit.example"),
        ("X-Cache", "RefreshHit from cloudfront"),
        ("X-Cache", "TCP_REFRESH_HIT from a23"),
        ("X-Cache", "white"),
        ("X-Cache-Status", "REVALIDATED"),
        ("CF-Cache-Status", "DYNAMIC"),
        ("CF-Cache-Status", "EXPIRED"),
        ("Cache-Status", "ExampleCache; fwd=stale; stored"),
        ("Cache-Status", "Hit; fwd=miss"),
        ("Warning", '199 - "Miscellaneous"'),
        ("Via", "1.1 varnish"),
    ],
)
def test_a_cache_miss_or_revalidation_is_new(header: tuple[str, str]) -> None:
    """The name of a cache alone does not make an answer a copy."""
    assert age_of(header) == ContentAge()


def test_djangos_page_cache_shows_its_age_in_expires() -> None:
    """Old versions send a new Date and no Age, but the Expires of the original."""
    date = ("Date", http_date(NOW))
    expires = ("Expires", http_date(NOW + timedelta(seconds=60)))
    assert age_of(date, expires, ("Cache-Control", "max-age=300")) == ContentAge(
        timedelta(seconds=241), timedelta(seconds=59)
    )
    assert age_of(date, expires, ("Cache-Control", "max-age=60")) == ContentAge()


@pytest.mark.parametrize(
    "control", ["max-age=30", "max-age=300, no-store", "max-age=300, max-age=60", "private", ""]
)
def test_an_expires_that_contradicts_max_age_is_ignored(control: str) -> None:
    """It was not set together with max-age."""
    date = ("Date", http_date(NOW))
    for seconds in (-3600, 60):
        expires = ("Expires", http_date(NOW + timedelta(seconds=seconds)))
        assert age_of(date, expires, ("Cache-Control", control)) == ContentAge()


def test_new_answers_are_not_changed() -> None:
    """The same record is returned, and the first answer sets the clock."""
    host = Host(ahead=MINUTE)
    for _ in range(5):
        read = host.read()
        assert not read.age
        assert timedelta() <= host.error <= SECOND
        assert read.began_at == host.clock.moment - SECOND


def test_a_copy_with_an_age_does_not_change_the_clock() -> None:
    """The read counts from the time of the copy, whichever server set Date."""
    host = Host(ahead=MINUTE)
    host.read()
    before = host.source.offset
    for made in (timedelta(), timedelta(seconds=240)):
        at = host.clock.moment
        read = host.read(made=made, age=timedelta(seconds=240))
        assert host.source.offset == before
        assert read.began_at == at - timedelta(seconds=240)
        assert read.source_at is not None
        assert abs(read.source_at - (read.began_at + host.ahead)) <= SECOND


def test_an_old_date_means_a_copy() -> None:
    """Its age is the difference to Dreamship's clock, which stays as it is."""
    host = Host(ahead=-MINUTE)
    host.read(1)
    at, before = host.clock.moment, host.source.offset
    read = host.read(2, made=timedelta(seconds=240))
    assert timedelta(seconds=239) <= read.age <= timedelta(seconds=242)
    assert read.began_at == at - read.age
    assert host.source.offset == before


def test_a_copy_read_repeatedly_does_not_change_the_clock() -> None:
    """Its Date stands still, and is one second older with each call."""
    host = Host()
    host.read()
    ages = [host.read(made=timedelta(seconds=second)).age for second in range(200)]
    assert ages[-1] >= timedelta(seconds=198)
    assert -SECOND <= host.error <= 2 * SECOND


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 900)), max_size=60))
def test_copies_among_new_answers_barely_change_the_clock(copies: list[tuple[int, int]]) -> None:
    """A true event is never in the future of the estimate."""
    host = Host(ahead=timedelta(seconds=100))
    for _ in range(3):
        host.read()
    for resource, seconds in copies:
        host.read(resource, made=timedelta(seconds=seconds))
        host.read(0)
        assert -SECOND <= host.error <= 2 * SECOND


@pytest.mark.parametrize("years", [10, -10])
def test_one_wrong_date_is_ignored(years: int) -> None:
    """For the clock and for the read, as the first answer or a later one."""
    host = Host()
    wild = timedelta(days=365 * years)
    first = host.read(1, wrong=wild)
    assert first.source_at is None
    assert not first.age
    assert host.source.offset == timedelta()
    host.read(2)
    later = host.read(1, wrong=wild)
    assert timedelta() <= host.error <= SECOND
    assert later.source_at is None or later.source_at < host.source.now()


def test_one_wrong_host_among_three_never_sets_the_clock() -> None:
    """Every third answer is ten years ahead, for hundreds of answers."""
    host = Host()
    for number in range(600):
        wrong = timedelta(days=3650) if number % 3 == 0 else timedelta()
        host.read(number, wrong=wrong)
        assert host.error <= SECOND


def test_wrong_dates_that_agree_do_not_change_a_known_clock() -> None:
    """Five answers in a row for one item, ten years ahead: seed 21450 of the simulation."""
    host = Host()
    host.read(1)
    for _ in range(100):
        for _ in range(5):
            host.read(1, wrong=timedelta(days=3650))
            host.clock.moment += MINUTE / 2
        assert timedelta() <= host.error <= SECOND
        host.read(1)


@pytest.mark.parametrize(
    ("by", "answers"),
    [(timedelta(hours=1), 3), (-timedelta(hours=1), 3), (timedelta(days=900), 24)],
)
def test_a_changed_clock_is_learned_again(by: timedelta, answers: int) -> None:
    """Three answers for an item that was read twice prove hours; other changes take many."""
    host = Host()
    for number in range(40):
        host.read(number)
    host.ahead += by
    for _ in range(answers):
        assert abs(host.error) > MINUTE
        host.read(1)
        host.clock.moment += MINUTE / 2
    assert timedelta() <= host.error <= SECOND
    host.ahead -= by
    for number in range(24):
        assert abs(host.error) > MINUTE
        host.read(100 + number)
    assert timedelta() <= host.error <= SECOND
    assert not host.read(200).age


def test_three_answers_set_the_clock_of_a_host_years_behind() -> None:
    """A new mirror has no reason to trust the clock of its host."""
    host = Host(ahead=timedelta(days=3000))
    reads = [host.read(number) for number in range(4)]
    assert [read.source_at is None for read in reads] == [True, True, False, False]
    assert not any(read.age for read in reads)
    assert timedelta() <= host.error <= SECOND


def test_a_wrong_stored_offset_is_corrected() -> None:
    """Ten years, stored by an earlier version, go after a few answers that agree."""
    poisoned = Host(timedelta(days=3650))
    reads = [poisoned.read(number) for number in range(4)]
    assert not reads[-1].age
    assert abs(poisoned.source.offset) < timedelta(seconds=5)
    stored = Host(timedelta(seconds=-90), ahead=timedelta(seconds=-91))
    assert stored.source.offset == timedelta(seconds=-90)
    assert not stored.read().age
    assert stored.read(made=timedelta(seconds=240)).age > timedelta(seconds=200)


def test_a_jump_of_the_host_clock_during_a_call_is_ignored() -> None:
    """The answer arrives before its request was sent."""
    host = Host()
    read = ItemRead(1, None, (), NOW + MINUTE, NOW)
    assert host.source.placed(read, 1).source_at is None
    assert host.source.offset == timedelta()


def test_the_offset_follows_a_jump_of_the_host_clock() -> None:
    """Dreamship's clock stays where it was."""
    host = Host(ahead=MINUTE)
    host.read()
    before = host.source.now()
    host.clock.moment += timedelta(hours=1)
    host.source.follow(Jump(NOW, NOW + timedelta(hours=1), NOW))
    host.ahead -= timedelta(hours=1)
    assert host.source.now() == before
    assert not host.read().age


def test_stored_times_of_the_far_future_outdate_no_event() -> None:
    """An earlier version stored a read and an event ten years ahead."""
    wild = NOW + timedelta(days=3650)
    known = ValueState("in_stock", event_at=wild, read_at=wild, delivered_at=NOW)
    result = on_delivery(
        known,
        value="out_of_stock",
        event_at=NOW,
        arrived_at=NOW,
        read_at=wild,
        source_now=NOW,
    )
    assert (result.rule, result.value_state.event_at) == ("newer", NOW)
    agreed = on_delivery(
        known, value="in_stock", event_at=NOW, arrived_at=NOW, read_at=wild, source_now=NOW
    )
    assert agreed.value_state.event_at == NOW
    first = on_delivery(
        None, value="in_stock", event_at=NOW, arrived_at=NOW, read_at=wild, source_now=NOW
    )
    assert first.rule == "first-word"


def cached() -> CachedAnswers:
    return CachedAnswers(
        RateLimiter(Database(Path("not-used.db")), HandClock(), start(45)), lambda: 0.5
    )


def copy(age: timedelta, fresh_for: timedelta | None = None) -> ItemRead:
    return ItemRead(1, None, (), NOW - age, None, age=age, fresh_for=fresh_for)


def test_a_copy_is_read_again_after_its_lifetime() -> None:
    """If the cache stores it longer, the waits grow."""
    answers = cached()
    one = copy(MINUTE, 4 * MINUTE)
    assert answers.repeat_at(1, one, NOW) == NOW + 4 * MINUTE + SECOND
    one = copy(6 * MINUTE, timedelta())
    waits = [answers.repeat_at(1, one, NOW) - NOW for _ in range(8)]
    assert waits == [MINUTE, *(2**n * MINUTE for n in (1, 2, 3)), *[15 * MINUTE] * 4]


def test_an_implausible_date_is_read_again_soon() -> None:
    """One of several hosts has a wrong clock: seeds 40696 and 41054 of the simulation."""
    answers, one = cached(), copy(timedelta(days=3650))
    waits = [answers.repeat_at(1, one, NOW) - NOW for _ in range(4)]
    assert waits == [3 * SECOND, 6 * SECOND, 12 * SECOND, 24 * SECOND]


def test_three_reads_of_one_copy_do_not_count_as_three_answers() -> None:
    """A current answer contradicts it, on a host two years behind too: seed 40961."""
    years = timedelta(days=730)
    host = Host(years, ahead=years)
    host.read()
    for number in range(3):
        assert host.read(7, made=200 * SECOND + number * SECOND).age >= 199 * SECOND
    assert timedelta() <= host.error <= SECOND


def test_rereading_copies_takes_a_share_of_the_budget_only() -> None:
    """Reads of 500 items are spread; no wait is longer than an hour."""
    answers = cached()
    waits = [answers.repeat_at(number, copy(MINUTE), NOW) - NOW for number in range(500)]
    assert waits[-1] / MINUTE == pytest.approx(499 * 4 / 45)
    for item_id in range(5000):
        assert answers.repeat_at(item_id, copy(MINUTE), NOW) - NOW <= LONGEST


def test_the_status_counts_cached_items_until_the_last_is_read() -> None:
    """One copy alone is normal; a repeated one, or three items, make a reason."""
    answers = cached()
    answers.repeat_at(1, copy(MINUTE), NOW)
    reasons = [answers.reason]
    answers.repeat_at(1, copy(2 * MINUTE), NOW)
    reasons.append(answers.reason)
    answers.repeat_at(2, copy(UNKNOWN_AGE), NOW)
    reasons.append(answers.reason)
    answers.is_new(1)
    answers.is_new(2)
    reasons.append(answers.reason)
    assert reasons[0] is reasons[3] is None
    assert "repeated: 1;" in (reasons[1] or "")
    assert "copy: 120 s" in (reasons[1] or "")
    assert "copy: unknown" in (reasons[2] or "")


def test_an_answer_a_few_seconds_old_is_no_copy() -> None:
    """A proxy whose clock differs must not count as a cache."""
    answers = cached()
    young = COPY_AGE - SECOND
    for _ in range(5):
        assert answers.repeat_at(1, copy(young), NOW) == NOW + young
    assert answers.reason is None
