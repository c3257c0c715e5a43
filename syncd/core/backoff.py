"""How long to wait before the next try."""

from __future__ import annotations

from datetime import timedelta


def backoff(attempt: int, chance: float, *, base_s: float = 0.5, cap_s: float = 300) -> timedelta:
    """Return the wait before try `attempt` + 1 (attempt counts from 1): exponential, full jitter.

    `chance` in [0, 1) is drawn by the caller.
    """
    return timedelta(seconds=chance * min(cap_s, base_s * 2.0 ** min(attempt, 30)))
