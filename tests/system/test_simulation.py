"""The whole system, simulated; tests/simulation/run.py runs any number of seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
from documents import ROOT
from simulation.broken import BREAKS, broken
from simulation.days import Day, lived, silence
from simulation.scenario import Scenario, drawn
from simulation.simulation import simulate

PROBLEMS = {
    *("dropped", "doubled", "delayed", "garbled", "retried", "throttles", "failed calls"),
    *("deaths", "clock steps", "naps"),
}
RUN = ROOT / "tests" / "simulation" / "run.py"
# An ordinary run has fewer worlds than CI, and every kind of world.
SEEDS, SEEDS_IN_CI = 22, 120
# Most broken rules are detected within a few worlds. The first two worlds take 100 hours for one.
SEEDS_TO_DETECT = range(2, 60)
# The first seed that detects the rule, where it is late; the others are tried if it does not.
DETECTED_BY = {"copies-believed": 25, "garbled-ignored": 28, "ties-applied": 14}
# Worlds with many cases for a rule whose cases are rare.
RICH: dict[str, dict[str, Any]] = {
    "garbled-ignored": {"garbled": 0.6, "statuses": 0.0},
    "partial-taken-for-whole": {"partial": 0.4},
    "copies-believed": {"cache_s": 300.0},
}


def kinds(seeds: int) -> set[tuple[str, object]]:
    """Return what these worlds have: each choice of a name, and each share or number, or none."""
    return {
        (one.name, value if isinstance(value, str) else bool(value))
        for seed in range(seeds)
        for one in fields(Scenario)
        if one.name != "seed"
        for value in [getattr(drawn(seed), one.name)]
    }


def test_an_ordinary_run_has_every_kind_of_world() -> None:
    """Each fault is on in some world and off in another, as in CI."""
    assert kinds(SEEDS) == kinds(SEEDS_IN_CI)


def test_mirror_and_source_agree_in_every_world() -> None:
    """Each ends with mirror = source, and never shows a variant sellable that is not.

    They run in processes without coverage, which would double the time.
    """
    environ = {name: value for name, value in os.environ.items() if "COV" not in name.upper()}
    seeds = SEEDS_IN_CI if os.environ.get("CI") == "true" else SEEDS
    done = subprocess.run(
        [sys.executable, str(RUN), "--seeds", f"0:{seeds}", "--processes", "2"],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Counts that are zero do not appear.
    counts = dict(part.rsplit(" ", 1) for part in done.stdout.splitlines()[0].split(", "))
    assert {name for name, number in counts.items() if int(number)} >= PROBLEMS


def test_a_seed_gives_the_same_story_every_time() -> None:
    """Time, threads and hashes have no influence, so a failing seed can be repeated."""
    traces = {tuple(simulate(17, verbose=True).trace) for _ in range(2)}
    assert len(traces) == 1


def test_silence_is_noticed_long_before_the_next_sweep() -> None:
    """With a change a minute, within half an hour."""
    took_s = lived(partial(silence, after_s=3 * 3600.0), items=30)
    assert took_s < 1800


def test_a_sweep_takes_its_calls_and_no_more() -> None:
    """One call an item and one a page, at the allowed pace."""
    took_s = lived(Day.sweep, items=120)
    assert took_s == pytest.approx((120 + 2) * 61 / 45, rel=0.05)
    assert lived(Day.sweep, items=120, rows_have_variants=True) < 10


@pytest.mark.parametrize("rule", sorted(BREAKS))
def test_the_simulation_detects(rule: str) -> None:
    """Each rule is broken on purpose."""
    rich = RICH.get(rule, {})
    seeds = [DETECTED_BY.get(rule, SEEDS_TO_DETECT.start), *SEEDS_TO_DETECT]
    with broken(rule):
        detected_by = next(
            (seed for seed in seeds if simulate(seed, scenario=replace(drawn(seed), **rich)).error),
            None,
        )
    assert detected_by is not None


def test_a_confirming_read_does_not_wait_for_the_siblings() -> None:
    """Deliveries for one variant never delay the confirmation of another variant of the item."""
    assert simulate(2, scenario=busy(2)).error is None


def test_a_delivery_of_an_unplaced_variant_is_confirmed() -> None:
    """By a settled read, although its item was unknown when it arrived."""
    errors = {seed: simulate(seed).error for seed in (4, 14, 825)}
    assert set(errors.values()) == {None}, errors


def test_a_lagging_listing_does_not_make_a_variant_foreign() -> None:
    """A variant that the listing does not show yet is searched again."""
    errors = {seed: simulate(seed).error for seed in (5169, 5593, 5741)}
    assert set(errors.values()) == {None}, errors


def busy(seed: int) -> Scenario:
    """Return a world where nothing goes wrong and two variants change all the time."""
    return replace(
        drawn(seed),
        items=2,
        most_variants=4,
        changes=150,
        horizon_s=1500.0,
        hot_share=0.95,
        bursts=False,
        additions=0.0,
        removals=0.0,
        reported_additions=1.0,
        host_offset_s=0.0,
        source_offset_s=0.0,
        event_offset_s=0.0,
        lead_s=0.0,
        unplaced=0.0,
        dropped=0.0,
        doubled=0.0,
        delayed=0.0,
        answers_lost=0.0,
        latest_data=False,
        nameless=0.0,
        vague=0.0,
        naming="id",
        lag_s=0.0,
        latency_s=0.3,
        unreachable=0.0,
        invalid=0.0,
        outages=(),
        throttle=None,
        calls_per_minute=45,
        scope="all",
        deaths=0,
        disk_faults=0.0,
        cache_s=0.0,
        wild_dates=0.0,
    )
