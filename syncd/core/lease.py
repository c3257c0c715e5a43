"""The lease of a published source: at most one syncd publishes it at any time."""

from __future__ import annotations

from typing import Literal

from syncd.core.publishing import Source

# A lease whose holder has given no sign of life for this time can be taken.
LEASE_S = 60.0
# The error in the answer of a waiting host to a delivery.
WAITING = "another host is active"

LeaseStep = Literal["keep", "take", "wait"]


def lease_step(
    source: Source,
    mirror: str,
    epoch: int | None,
    age_s: float | None,
    *,
    lease_s: float = LEASE_S,
    may_take_old: bool = True,
) -> LeaseStep:
    """Return whether a publisher of a mirror keeps the lease, may take it, or has to wait.

    `epoch`: the epoch of the last lease of this process, None before its first lease. `age_s`: the
    time since the last sign of life of the holder. A process takes the lease of its own mirror at
    once only at its start. Later, another process with the same mirror id has it, for example on a
    cloned machine.
    `may_take_old` False: an old lease stays, because the holder may have had no chance to renew it.
    """
    is_own = source.holder == mirror
    if is_own and source.epoch == epoch:
        return "keep"
    if source.holder is None or (is_own and (epoch is None or source.is_granted)):
        return "take"
    # The clock of the target may have been set back.
    is_old = age_s is None or abs(age_s) >= lease_s
    return "take" if is_old and may_take_old else "wait"


def renewal_s(lease_s: float) -> float:
    """Return how often a holder renews its lease: six times before it is old."""
    return lease_s / 6


def watch_s(lease_s: float) -> float:
    """Return for how long a waiting daemon reaches the target before it takes an old lease.

    After a failure of the target every lease is old. The holder renews it within this time.
    """
    return lease_s / 3


def unwritable_limit_s(lease_s: float) -> float:
    """Return how long the mirror cannot be written before an active standby host stops."""
    return lease_s / 2


def pause_s(lease_s: float) -> float:
    """Return the pause of a process after which it looks at its lease before it goes on."""
    return lease_s / 3
