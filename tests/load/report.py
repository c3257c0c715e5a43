"""The results of a sender of deliveries."""

from __future__ import annotations

from msgspec import Struct, field


class Accepted(Struct, frozen=True, array_like=True):
    """One delivery that was answered 200; no other delivery has the same value."""

    event_id: str
    variant_id: int
    value: str
    event_at: str
    outcome: str


class Report(Struct):
    """`statuses` counts every answer by its code.

    Requests without an answer: `refused` (no process listened), `reset` (on a new connection), and
    `raced` (on a used connection: the server may close it while a request is on its way, and each
    HTTP client repeats such a request, RFC 9112, 9.3.1).
    """

    accepted: list[Accepted] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    reset: int = 0
    raced: int = 0
    longest_wait_s: float = 0.0
    seconds: float = 0.0
