"""The headline of the shop: one state with one colour, the shop's sentence, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert
from msgspec.structs import replace

from syncd.core import health
from syncd.core.fail_safe import CONFIRMATION_LASTS, SIGN_OF_LIFE_LASTS
from syncd.core.headline import DELIVERIES, LABELS, Headline, headline, publication
from syncd.core.health import Problem
from syncd.core.status_document import (
    ListingsStatus,
    PublishStatus,
    PushStatus,
    StatusDocument,
)
from syncd.core.timestamps import to_text

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)


def at(**ago: float) -> str:
    return to_text(NOW - timedelta(**ago))


def document(*problems: Problem, **changes: Any) -> StatusDocument:
    """Return the document of a healthy daemon, with these problems and changed parts."""
    parts: dict[str, dict[str, Any]] = {
        "webhooks": {
            "state": "healthy",
            "last_delivery_at": at(minutes=2),
            "missed_24h": 0,
            "invalid_signatures_24h": 0,
        },
        "mirror": {
            "path": "/var/lib/syncd/availability.db",
            "items": 120,
            "variants": 500,
            "sellable": 266,
            "removed": 20,
            "oldest_confirmed_at": at(minutes=12),
            "unknown_values": {"out_of_stock": 214},
            "daemon_seen_at": at(seconds=20),
        },
        "sweep": {
            "running": False,
            "checked": 0,
            "total": None,
            "eta_seconds": None,
            "last_finished_at": at(hours=1),
            "last_result": "complete",
            "next_at": at(hours=-5),
        },
        "budget": {"calls_per_minute": 45, "used_last_minute": 3, "throttled_24h": 0},
    }
    for name in parts.keys() & changes.keys():
        parts[name] |= changes.pop(name)
    found = convert(
        parts
        | {
            "health": "degraded" if problems else "ok",
            "reasons": [one.reason for one in problems],
            "refresh_queue": 0,
            "quarantined": 0,
            "version": "0.2.0",
            "started_at": at(days=1),
        },
        StatusDocument,
    )
    return replace(found, problems=list(problems), **changes)


def of(*problems: str, **changes: Any) -> Headline:
    return headline(document(*(Problem(code, code) for code in problems), **changes), NOW)


FILLING: dict[str, Any] = {
    "running": True,
    "checked": 30,
    "total": 120,
    "eta_seconds": 150,
    "last_finished_at": None,
    "last_result": None,
    "next_at": None,
}


def test_a_healthy_shop_is_described_in_three_sentences() -> None:
    """Without a problem there is nothing else to read."""
    head = of()
    assert (head.state, head.label, head.color) == ("well", "All well", "green")
    assert head.sentences(to_text(NOW)) == (
        "Selling 266 of 480 variants. Confirmed 12 minutes ago. Deliveries: arriving."
    )
    assert (head.problem, head.meanwhile, head.others, head.fill) == (None, "", [], None)


def test_a_shop_with_listings_counts_its_skus() -> None:
    """A single one is no plural."""
    listings = ListingsStatus(total=1, sellable=1, unsellable={})
    assert of(listings=listings).sells == "Selling 1 of 1 SKU"


def test_a_host_that_waits_names_the_active_one() -> None:
    """Its own mirror and its own plans do not matter to the shop."""
    publish = PublishStatus(
        state="standby",
        lag_seconds=0,
        seq=None,
        epoch=3,
        error=None,
        active_host="shop-a",
        waiting=True,
    )
    head = of(publish=publish)
    assert (head.label, head.color) == ("Another host is active", "blue")
    sentence = "shop-a serves the shop. Deliveries: go to the active host."
    assert head.sentences(to_text(NOW)) == sentence
    assert head.next == ["This host takes over when shop-a stops."]
    assert of("control", publish=publish).label == "Something to do"


@pytest.mark.parametrize(
    ("problems", "changes", "state", "color"),
    [
        (["first_fill", "no_delivery"], {"sweep": FILLING}, "filling", "blue"),
        (["no_delivery"], {}, "waiting", "blue"),
        (["down"], {}, "catching_up", "blue"),
        (["no_delivery", "down"], {}, "waiting", "blue"),
        (["silent"], {}, "attention", "amber"),
        (["no_delivery", "sweep"], {}, "attention", "amber"),
        (["something_new"], {}, "attention", "amber"),
        # The fail-safe of the shop still sells.
        (["key_refused"], {}, "attention", "amber"),
        (["key_refused"], {"mirror": {"oldest_confirmed_at": at(hours=25)}}, "losing", "red"),
        (["key_refused"], {"mirror": {"oldest_confirmed_at": None}}, "losing", "red"),
        # A shop that cannot read the mirror sells nothing.
        (["first_fill", "key_refused"], {"sweep": FILLING}, "losing", "red"),
        (["first_fill", "throttled"], {"sweep": FILLING}, "attention", "amber"),
        (["not_durable"], {}, "stopping", "red"),
        (["not_durable"], {"mirror": {"daemon_seen_at": at(minutes=6)}}, "losing", "red"),
        ([], {"mirror": {"sellable": 0}}, "losing", "red"),
    ],
)
def test_a_state_that_costs_sales_is_red(
    problems: list[str], changes: dict[str, Any], state: str, color: str
) -> None:
    """Now, or within minutes; filling, waiting and catching up are states of their own."""
    head = of(*problems, **changes)
    assert (head.state, head.color) == (state, color)


def test_the_first_fill_has_its_progress_and_its_end() -> None:
    """It is no problem; the problem of the missing delivery comes after it."""
    head = of("first_fill", "no_delivery", sweep=FILLING)
    assert head.fill == "30 of 120 items are read, about 2 min 30 s left."
    assert head.problem is None
    assert [one.code for one in head.others] == ["no_delivery"]
    assert head.next[0] == "The first fill ends in about 2 min 30 s: 30 of 120 items are read."
    assert of("first_fill", sweep=FILLING | {"running": False}).fill is not None


def test_the_most_urgent_problem_is_the_first() -> None:
    """The others stay readable."""
    head = of("quarantined", "silent", "key_refused", "not_durable")
    assert head.problem is not None
    assert head.problem.code == "not_durable"
    assert [one.code for one in head.others] == ["key_refused", "silent", "quarantined"]


def test_the_fail_safe_has_its_documented_limits() -> None:
    """Five minutes after the last sign of life; a day after a confirmation."""
    assert f"until {to_text(NOW - timedelta(seconds=20) + SIGN_OF_LIFE_LASTS)}." in (
        of("not_durable").meanwhile
    )
    assert f"until {to_text(NOW - timedelta(minutes=12) + CONFIRMATION_LASTS)}." in (
        of("unreachable").meanwhile
    )
    dead = of("not_durable", mirror={"daemon_seen_at": at(minutes=6)})
    assert dead.meanwhile.startswith(f"The shop has sold nothing since {at(minutes=1)}")
    assert dead.sells == "Selling 0 of 480 variants"
    assert "Only reads find changes now; every variant was read within the last 12 min." in (
        of("silent").meanwhile
    )


def test_a_configuration_that_sells_nothing_is_a_problem() -> None:
    """It names the values that the catalogue has."""
    head = of(mirror={"sellable": 0, "unknown_values": {"in stock": 470, "sold out": 10}})
    assert head.problem is not None
    assert head.problem.message == (
        "No variant can be sold: the catalogue has 'in stock', 'sold out'"
    )
    # During the first fill nothing is known yet.
    assert of("first_fill", sweep=FILLING, mirror={"sellable": 0}).state == "filling"
    # An empty mirror sells nothing, and nothing is lost.
    empty = of(mirror={"variants": 0, "sellable": 0, "removed": 0, "oldest_confirmed_at": None})
    assert empty.state == "well"
    assert empty.sentences(to_text(NOW)) == "Nothing to sell. Deliveries: arriving."


def test_each_state_of_deliveries_has_one_word() -> None:
    """Before the first heartbeat after a delivery, too."""
    assert [of(webhooks={"state": state}).deliveries for state in DELIVERIES] == [
        "arriving",
        "some are lost",
        "stopped",
        "arriving",
    ]
    assert of(webhooks={"state": "unknown", "last_delivery_at": None}).deliveries == "not known yet"
    assert of("no_delivery", waiting_for_first_delivery=True).deliveries == "none yet"


def test_up_to_three_things_come_next() -> None:
    """The sweep, confirming reads, pushes, and the next sweep."""
    push = PushStatus(name="shop", seq=3, lag_changes=1, error=None)
    head = of(
        refresh_queue=2, push=[push], sweep={"running": True, "checked": 1, "eta_seconds": None}
    )
    assert head.next == [
        "The sweep ends: 1 of ? items are read.",
        "2 items wait for a read that confirms a delivery.",
        "The push shop sends 1 change.",
    ]
    assert of().next == [f"The next sweep begins at {at(hours=-5)}."]


def test_an_older_daemon_has_only_reasons() -> None:
    """They are problems without a code."""
    old = replace(document(), health="degraded", reasons=["Deliveries have stopped."])
    head = headline(old, NOW)
    assert head.state == "attention"
    assert head.problem == Problem("other", "Deliveries have stopped")


def test_the_publication_is_one_line() -> None:
    """None if nothing is published."""
    assert publication(None) is None
    one = PublishStatus(state="standby", lag_seconds=75.0, seq=12, epoch=1, error=None)
    assert publication(one) == "standby, 1 min 15 s behind, change 12"
    failed = replace(one, error="no connection")
    assert publication(failed) == "standby, 1 min 15 s behind, change 12: no connection"
    copying = replace(one, state="active", copying=True)
    assert publication(copying) == "active, 1 min 15 s behind, change 12, compares everything"


CODES = [
    *("not_durable", "key_refused", "no_delivery", "silent", "lost", "key_rotated", "quarantined"),
    *("throttled", "unreachable", "cached", "not_stored", "partly_stored", "down", "first_fill"),
    *("sweep", "removals_held", "listings_file", "listings_dead", "push_stopped", "push_failing"),
    *("publish_fenced", "publish_failing"),
]


def test_the_codes_are_those_of_the_health() -> None:
    """A new one needs a decision about the shop meanwhile."""
    source = health.__loader__.get_source(health.__name__)  # type: ignore[union-attr]
    assert all(f'"{code}"' in source for code in CODES)
    assert source.count("yield Problem(") == len(CODES) + 1  # two kinds of held removals


@given(
    st.lists(st.sampled_from(CODES), unique=True),
    st.one_of(st.none(), st.integers(-3600, 200_000)),
    st.one_of(st.none(), st.integers(-3600, 200_000)),
)
def test_every_combination_has_a_headline(
    codes: list[str], confirmed_s: int | None, seen_s: int | None
) -> None:
    """No problem is lost; only a state without a problem is green."""
    mirror = {
        "oldest_confirmed_at": None if confirmed_s is None else at(seconds=confirmed_s),
        "daemon_seen_at": None if seen_s is None else at(seconds=seen_s),
    }
    head = of(*codes, mirror=mirror)
    assert head.state in LABELS
    assert (head.color == "green") == (not codes)
    shown = {one.code for one in head.others} | ({head.problem.code} if head.problem else set())
    assert shown | {"first_fill"} == {*codes, "first_fill"}
    assert bool(head.meanwhile) == (head.problem is not None)
