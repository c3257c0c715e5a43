"""What a sender of deliveries did and was told."""

from __future__ import annotations

from msgspec import Struct, field


class Told(Struct, frozen=True, array_like=True):
    """One delivery that was answered 200; no other ever told the same value."""

    event_id: str
    variant_id: int
    value: str
    event_at: str
    outcome: str


class Report(Struct):
    """`statuses` counts every answer by its code.

    What was not answered at all: `refused` (nobody listened), `reset` (on a connection of its own),
    `raced` (on a connection that had served before: it may be closed by an idle server exactly
    while a request is on its way, and every HTTP client tries that again, RFC 9112, 9.3.1).
    """

    told: list[Told] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    reset: int = 0
    raced: int = 0
    longest_wait_s: float = 0.0
    seconds: float = 0.0
