"""The story of a variant in sentences, and times in sentences."""

from __future__ import annotations

from typing import Any

import pytest

from syncd.core.explain import RULES, VariantHistory
from syncd.core.relative_time import either, split_moments, with_moments
from syncd.core.story import story

MISSED = "No delivery had reported that."
NOT_SOLD = "From then on the shop could not sell it."
SOLD = "From then on the shop could sell it."


def moment(minute: int) -> str:
    return f"2026-03-01T12:{minute:02}:00.000000Z"


def delivery(number: int, told: str | None, **more: Any) -> dict[str, Any]:
    row = {"delivery_id": number, "received_at": moment(number), "told": told, "reason": None}
    return row | {"outcome": "applied", "rule": "newer"} | more


def change(number: int, before: str | None, after: str | None, **more: Any) -> dict[str, Any]:
    values = {"old_availability": before, "availability": after, "sellable": after == "in_stock"}
    row = {"seq": number, "recorded_at": moment(number), "cause": "read", "missed": 0}
    return row | values | more


def sentences_of(deliveries: list[dict[str, Any]], changes: list[dict[str, Any]]) -> list[str]:
    history = VariantHistory(
        1, None, None, deliveries=deliveries[::-1], changes=changes[::-1], is_unplaced=False
    )
    return [event.text for event in story(history)]


def test_a_story_begins_with_the_oldest_event() -> None:
    """Each delivery and each read, and what both meant for the shop."""
    assert sentences_of(
        [
            delivery(2, "out_of_stock"),
            delivery(6, None, outcome="quarantined", rule=None),
            delivery(7, "in_stock", outcome="verifying", rule="contradicts", reason="is older"),
        ],
        [
            change(1, None, "in_stock"),
            change(2, "in_stock", "out_of_stock", cause="webhook"),
            change(4, "out_of_stock", "in_stock", missed=1),
            change(5, "in_stock", "in_stock", cause="config", sellable=0),
            change(8, "in_stock", None),
        ],
    ) == [
        "A read found the variant: it was 'in_stock'. From then on the shop could sell it.",
        f"Delivery 2 reported 'out_of_stock': {RULES['newer']}. {NOT_SOLD}",
        f"A read found 'in_stock' instead of 'out_of_stock'. {MISSED} {SOLD}",
        "The configuration changed. From then on the shop could not sell it.",
        "Delivery 6 was not understood. It names this variant or its item, so a read checks it.",
        "Delivery 7 reported 'in_stock': is older.",
        "A read of the catalogue no longer found the variant, so syncd removed it.",
    ]


def test_an_empty_story() -> None:
    """A variant that only a sweep has seen long ago."""
    assert sentences_of([], []) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (moment(0), "2 hours ago"),
        ("2026-03-01T14:00:30.000000Z", "in less than a minute"),
        ("2026-03-05T14:00:00.000000Z", "in 4 days"),
        ("never", "never"),
    ],
)
def test_a_moment_is_shown_by_its_distance(text: str, shown: str) -> None:
    """In both directions; a text that is no moment stays."""
    assert either(text, "2026-03-01T14:00:00.000000Z") == shown


def test_moments_in_a_text_are_found() -> None:
    """Of any number, also none."""
    text = f"from {moment(1)} to {moment(2)}."
    assert split_moments(text) == ["from ", moment(1), " to ", moment(2), "."]
    assert split_moments("x") == ["x"]
    assert with_moments(text, lambda at: at[11:16]) == "from 12:01 to 12:02."
