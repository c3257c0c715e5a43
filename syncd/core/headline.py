"""The headline of the shop: what it sells, one state with one colour, and what to do. Pure.

The status page and `syncd status` show it, so that each state has the same words everywhere. A text
may contain moments in the format of the status document and commands in backticks: the page and the
command show both in their own way.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Literal

from msgspec import Struct

from syncd.core.fail_safe import (
    CONFIRMATION_LASTS,
    SIGN_OF_LIFE_LASTS,
    STOP_READS,
    after,
    meanwhile,
)
from syncd.core.health import Problem
from syncd.core.relative_time import ago, duration
from syncd.core.status_document import PublishStatus, StatusDocument

State = Literal[
    "well",
    "standby",
    "filling",
    "waiting",
    "catching_up",
    "attention",
    "stopping",
    "losing",
]
Color = Literal["green", "blue", "amber", "red"]

MAX_NEXT = 3
# The values that a text names, if no value may be sold.
_MAX_VALUES = 3

LABELS: dict[State, tuple[str, Color]] = {
    "well": ("All well", "green"),
    "standby": ("Another host is active", "blue"),
    "filling": ("Filling for the first time", "blue"),
    "waiting": ("Waiting for the first delivery", "blue"),
    "catching_up": ("Catching up after an outage", "blue"),
    "attention": ("Something to do", "amber"),
    "stopping": ("Sales stop in minutes", "red"),
    "losing": ("Sales are lost now", "red"),
}
# The words for `webhooks.state`.
DELIVERIES = {
    "healthy": "arriving",
    "failing": "some are lost",
    "silent": "stopped",
    "unknown": "not known yet",
}
NO_DELIVERY = "none yet"
TO_ACTIVE_HOST = "go to the active host"
# Problems that need no action, and are a separate state.
_OWN_STATES: dict[str, State] = {
    "first_fill": "filling",
    "no_delivery": "waiting",
    "down": "catching_up",
}
# The most urgent first; all others follow in the order of the document.
_ORDER = ("not_durable", "nothing_sellable", "key_refused", "not_stored", "unreachable", "silent")


class Headline(Struct, frozen=True):
    """The state of the shop at one moment.

    `selling` of `total` SKUs, or variants without listings. `active_host`: the host that serves the
    shop while this one waits; then nothing is counted here. `problem`: the most urgent one, None if
    nothing is wrong. `meanwhile`: what the shop does until it is solved. `others`: the other
    problems. `next`: what happens next, up to three sentences.
    """

    state: State
    selling: int
    total: int
    unit: str
    confirmed_at: str | None
    deliveries: str
    fill: str | None
    problem: Problem | None
    meanwhile: str
    others: list[Problem]
    next: list[str]
    active_host: str | None = None

    @property
    def label(self) -> str:
        """The name of the state."""
        return LABELS[self.state][0]

    @property
    def color(self) -> Color:
        """Red means that sales are lost now, or within minutes."""
        return LABELS[self.state][1]

    @property
    def sells(self) -> str:
        """What the shop sells, as the beginning of a sentence."""
        if self.active_host is not None:
            return f"{self.active_host} serves the shop"
        if not self.total:
            return f"Nothing to sell{' yet' if self.state == 'filling' else ''}"
        return f"Selling {self.selling} of {self.total} {self.unit}{'s'[: self.total != 1]}"

    def sentences(self, now: str) -> str:
        """Return the state in sentences: sales, the age of the confirmation, and deliveries."""
        confirmed = "not yet" if self.confirmed_at is None else ago(self.confirmed_at, now)
        age = f" Confirmed {confirmed}." if self.total else ""
        return f"{self.sells}.{age} Deliveries: {self.deliveries}."


def headline(status: StatusDocument, now: datetime) -> Headline:
    """Return the headline of a status document."""
    alive_until = after(status.mirror.daemon_seen_at, SIGN_OF_LIFE_LASTS)
    confirmed_until = after(status.mirror.oldest_confirmed_at, CONFIRMATION_LASTS)
    problems = _problems(status)
    shown = [one for one in problems if one.code not in _OWN_STATES]
    own = [_OWN_STATES[one.code] for one in problems if one.code in _OWN_STATES]
    problem = shown[0] if shown else None
    is_filling = "filling" in own
    state: State = own[0] if own else "well"
    if is_filling:
        state = "filling"
    is_dead = alive_until is not None and alive_until <= now
    if problem is not None:
        is_lost = any(
            _loses_sales(one, now, confirmed_until, is_filling=is_filling) for one in shown
        )
        state = "losing" if is_lost else "attention"
        if problem.code == "not_durable" and not is_dead:
            state = "stopping"
    elif state == "waiting":
        problem = next(one for one in problems if one.code == "no_delivery")
    elif state == "catching_up":
        problem = next(one for one in problems if one.code == "down")
    selling, total, unit = _counts(status)
    if (active_host := _active_host(status.publish)) is not None:
        selling = total = 0
        state = "standby" if problem is None else state
    return Headline(
        state=state,
        selling=0 if is_dead and problem is not None else selling,
        total=total,
        unit=unit,
        confirmed_at=status.mirror.oldest_confirmed_at,
        deliveries=deliveries(status),
        fill=_fill(status) if is_filling else None,
        problem=problem,
        meanwhile="" if problem is None else meanwhile(problem, status, now),
        others=[one for one in problems if one is not problem and one.code != "first_fill"],
        next=list(islice(_next(status), MAX_NEXT)),
        active_host=active_host,
    )


def deliveries(status: StatusDocument) -> str:
    """Return whether deliveries arrive, in a word or two."""
    if _active_host(status.publish) is not None:
        return TO_ACTIVE_HOST
    if status.waiting_for_first_delivery:
        return NO_DELIVERY
    state, last_at = status.webhooks.state, status.webhooks.last_delivery_at
    if state == "unknown" and last_at is not None:
        state = "healthy"  # until the next heartbeat says so
    return DELIVERIES.get(state, state)


def publication(publish: PublishStatus | None) -> str | None:
    """Return the state of the publication in one line, or None if nothing is published."""
    if publish is None:
        return None
    if _waits(publish):
        return f"{publish.state}; {publish.active_host or 'another host'} is active"
    line = f"{publish.state}, {duration(publish.lag_seconds)} behind"
    if publish.seq is not None:
        line += f", change {publish.seq}"
    if publish.copying:
        line += ", compares everything"
    return f"{line}: {publish.error}" if publish.error else line


def _active_host(publish: PublishStatus | None) -> str | None:
    """Return the host that serves the shop while this one waits; None if this one serves."""
    if publish is None or not _waits(publish):
        return None
    return publish.active_host or "Another host"


def _waits(publish: PublishStatus) -> bool:
    return publish.waiting and publish.state != "failing"


def _problems(status: StatusDocument) -> list[Problem]:
    # A daemon of version 0.1.0 has only reasons.
    problems = list(status.problems) or [
        Problem("other", reason.removesuffix(".")) for reason in status.reasons
    ]
    selling, total, unit = _counts(status)
    if total and not selling and status.sweep.last_finished_at is not None:
        values = [f"{value!r}" for value in islice(status.mirror.unknown_values, _MAX_VALUES)]
        has = f": the catalogue has {', '.join(values)}" if values else ""
        problems.append(
            Problem(
                "nothing_sellable",
                f"No {unit} can be sold{has}",
                "if one of the values may be sold, add it to availability.sellable and reload; "
                "`syncd doctor` shows all values",
            )
        )
    order = {code: at for at, code in enumerate(_ORDER)}
    return sorted(problems, key=lambda one: order.get(one.code, len(order)))


def _counts(status: StatusDocument) -> tuple[int, int, str]:
    listings, mirror = status.listings, status.mirror
    if listings is not None:
        return listings.sellable, listings.total, "SKU"
    return mirror.sellable, mirror.variants - mirror.removed, "variant"


def _loses_sales(
    problem: Problem, now: datetime, confirmed_until: datetime | None, *, is_filling: bool
) -> bool:
    if problem.code in {"not_durable", "nothing_sellable"}:
        return True
    if problem.code not in STOP_READS:
        return False
    if is_filling:
        return problem.code != "throttled"
    return confirmed_until is None or confirmed_until <= now


def _fill(status: StatusDocument) -> str:
    sweep = status.sweep
    if not sweep.running:
        return "The first read of the catalogue begins soon."
    items = f"{sweep.checked} of {sweep.total or '?'} items are read"
    if sweep.eta_seconds is None:
        return f"{items}."
    return f"{items}, about {duration(sweep.eta_seconds)} left."


def _next(status: StatusDocument) -> list[str]:
    """Return what happens next, the most important first."""
    if (active_host := _active_host(status.publish)) is not None:
        return [f"This host takes over when {active_host} stops."]
    sweep, found = status.sweep, []
    if sweep.running:
        left = "" if sweep.eta_seconds is None else f" in about {duration(sweep.eta_seconds)}"
        counts = f"{sweep.checked} of {sweep.total or '?'} items"
        name = "The first fill" if sweep.last_finished_at is None else "The sweep"
        found.append(f"{name} ends{left}: {counts} are read.")
    if waiting := status.refresh_queue:
        items = "1 item waits" if waiting == 1 else f"{waiting} items wait"
        found.append(f"{items} for a read that confirms a delivery.")
    found += [
        f"The push {push.name} sends {push.lag_changes} change{'s'[: push.lag_changes != 1]}."
        for push in status.push
        if push.lag_changes and not push.stopped
    ]
    if sweep.next_at is not None:
        found.append(f"The next sweep begins at {sweep.next_at}.")
    return found
