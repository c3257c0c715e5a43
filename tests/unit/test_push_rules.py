"""What pushes decide without a network: waits, ids, bodies, health and metrics."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from pushing import lines_of

from syncd.admin.push_metrics import push_metrics
from syncd.core.health import PUSH_MAY_FAIL, _about_pushes
from syncd.core.pushes import END, Cursor, Step
from syncd.core.snapshots import PushSnapshot
from syncd.core.status_document import PushStatus, _push
from syncd.push.follower import _is_set_within
from syncd.push.sinks import MAX_RETRY_AFTER_S, wait_s

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
CURSOR = Cursor(
    name="shop", mirror="m", only="all", listings=0, run=1, seq=10, copied=None, pending=12
)
FINE = PushSnapshot(
    name="shop",
    seq=10,
    lag_changes=2,
    is_copying=False,
    is_stopped=False,
    error=None,
    failing_s=0,
    failures=0,
    batches=4,
)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, 0),
        ({"retry-after": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "-7"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "9" * 400}, MAX_RETRY_AFTER_S),
        ({"retry-after": "Fri, 27 Nov 2026 12:01:00 GMT"}, 60),
        ({"retry-after": "Fri, 27 Nov 2026 11:00:00 GMT"}, 0),
        # The clock of the receiver is an hour ahead.
        (
            {
                "retry-after": "Fri, 27 Nov 2026 13:00:30 GMT",
                "date": "Fri, 27 Nov 2026 13:00:00 GMT",
            },
            30,
        ),
    ],
)
def test_retry_after_has_two_forms(headers: dict[str, str], wait: float) -> None:
    """Seconds, and a moment by the clock of the receiver; anything else is no wait."""
    assert wait_s(headers, NOW) == wait


def test_each_batch_has_a_different_id() -> None:
    """By push, mirror, run, kind and both ends; the same again for the same batch."""
    others = [
        replace(CURSOR, name="other"),
        replace(CURSOR, mirror="other"),
        replace(CURSOR, run=2),
        replace(CURSOR, seq=11),
        replace(CURSOR, pending=13),
        replace(CURSOR, copied=10),
    ]
    ids = {one.message_id for one in (CURSOR, *others)}
    assert len(ids) == 1 + len(others)
    assert replace(CURSOR).message_id == CURSOR.message_id
    assert all(one.isascii() and len(one) == 36 for one in ids)


def test_the_position_moves_when_a_batch_is_taken() -> None:
    """A copy ends with its last batch, and the position goes on from before the copy."""
    assert CURSOR.taken == replace(CURSOR, seq=12, pending=None)
    copying = replace(CURSOR, copied=0, pending=7)
    assert copying.taken == replace(copying, copied=7, pending=None)
    assert replace(copying, copied=7, pending=END).taken == replace(CURSOR, pending=None)


def test_lines_have_the_batch_and_then_each_change() -> None:
    """A change is one line, with any texts."""
    changes: list[dict[str, Any]] = [
        {"seq": 11, "availability": "a\nb\u2028\x1b"},
        {"seq": 12, "availability": None},
    ]
    step = Step(CURSOR, changes)
    text = step.lines().decode()
    assert text.count("\n") == 3
    assert lines_of(text) == [
        {
            "id": CURSOR.message_id,
            "source": "default",
            "mirror": "m",
            "full": False,
            "changes": 2,
        },
        *changes,
    ]
    assert json.loads(step.body()) == {
        "source": "default",
        "mirror": "m",
        "full": False,
        "changes": changes,
    }


def test_a_push_that_fails_for_long_is_a_reason() -> None:
    """A short failure is not; a stopped one is at once."""
    limit_s = PUSH_MAY_FAIL.total_seconds()
    failing = replace(FINE, error="answered 500", failing_s=limit_s - 1)
    assert [*_about_pushes([FINE, failing])] == []
    (problem,) = _about_pushes([replace(failing, failing_s=limit_s)])
    assert problem.reason == (
        "The push shop has failed for 10 minutes: its receiver answered 500; 2 changes wait, "
        "and none is lost."
    )
    (problem,) = _about_pushes([replace(FINE, is_stopped=True, error="answered 410")])
    assert problem.reason.startswith("The push shop is stopped: its receiver answered 410;")


def test_a_wait_loses_no_cancellation() -> None:
    """One that arrives with the event: else a reload and a stop would wait for ever."""

    async def run() -> None:
        event = asyncio.Event()
        task = asyncio.create_task(_is_set_within(event, 5))
        await asyncio.sleep(0)
        event.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _is_set_within(event, 5)
        event.clear()
        assert not await _is_set_within(event, 0.01)

    asyncio.run(run())


def test_metrics_have_a_sample_for_each_push() -> None:
    """Without a position there is no sample of it."""

    class Collector:
        def collect(self) -> object:
            return push_metrics(
                [_push(FINE), PushStatus(name="new", seq=None, lag_changes=7, error="x")]
            )

    registry = CollectorRegistry()
    registry.register(Collector())  # type: ignore[arg-type]
    text = generate_latest(registry).decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == [
        'syncd_push_seq{name="shop"} 10.0',
        'syncd_push_lag_changes{name="shop"} 2.0',
        'syncd_push_lag_changes{name="new"} 7.0',
        'syncd_push_failing{name="shop"} 0.0',
        'syncd_push_failing{name="new"} 1.0',
        'syncd_push_failures_total{name="shop"} 0.0',
        'syncd_push_failures_total{name="new"} 0.0',
        'syncd_push_batches_total{name="shop"} 4.0',
        'syncd_push_batches_total{name="new"} 0.0',
    ]
