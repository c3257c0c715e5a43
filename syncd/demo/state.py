"""The state of the demo at one moment, its result, and sentences that describe both."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from msgspec import Struct, field

from syncd.core.model import JsonObject
from syncd.core.status_document import SweepStatus
from syncd.demo.compare import Comparison

PHASES = ("starting", "filling", "delivering", "outage", "repairing", "checking", "comparing")
ENDLESS_PHASES = ("starting", "filling", "running")


class DemoState(Struct):
    """The state of the demo at one moment, for the output; times are seconds since the start.

    `outage_s` to `online_s`: the network lost every delivery. `noticed_s`: a read had found a lost
    change. `repaired_s`: the mirror was right again. `checked`: items that `reconcile-now` read.
    `target`: the state of the target database, empty without one.
    """

    is_endless: bool = False
    folder: str = ""
    mirror: str = ""
    status_page: str = ""
    program: str = "syncd"
    phase: str = ""
    explanation: str = ""
    elapsed_s: float = 0.0
    items: int = 0
    flipped: int = 0
    sent: int = 0
    lost: int = 0
    doubled: int = 0
    in_flight: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    comparison: Comparison | None = None
    sweep: SweepStatus | None = None
    outage_s: float | None = None
    online_s: float | None = None
    noticed_s: float | None = None
    repaired_s: float | None = None
    checked: int | None = None
    target: str = ""

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of all phases."""
        return ENDLESS_PHASES if self.is_endless else PHASES


class Result(Struct, frozen=True, omit_defaults=True):
    """The result of the demo (`syncd demo --json`).

    `repaired`: lost changes that syncd found by itself, within `repaired_s` seconds after the
    outage. `reconcile`: what `reconcile-now` found after that. `target_differences`: of the target
    database, None without one.
    """

    differences: int
    variants: int
    changes: int
    sent: int
    lost: int
    doubled: int
    repaired: int
    repaired_s: float
    reconcile: JsonObject
    seconds: float
    database: str
    target_differences: int | None = None


class Place(Struct, frozen=True):
    """Where a running demo is (`syncd demo --seconds 0 --json`); `config` is for other commands."""

    folder: str
    database: str
    config: str
    status_page: str
    webhook: str
    dreamship: str


class Sentence(NamedTuple):
    """One part of the story. Before it happens, its text is empty; `is_final`: it is complete."""

    title: str
    text: str
    is_final: bool


def story(state: DemoState) -> list[Sentence]:
    """Return sentences about the loss, its detection and the repair, in the order of events."""
    return [
        Sentence("Lost", _lost(state), state.online_s is not None),
        Sentence("Noticed", _noticed(state), state.noticed_s is not None),
        Sentence("Repaired", _repaired(state), state.repaired_s is not None),
    ]


def _lost(state: DemoState) -> str:
    if state.outage_s is None:
        return ""
    if state.online_s is None:
        return f"the network loses every delivery, {state.lost} so far"
    lasted_s = state.online_s - state.outage_s
    return f"for {lasted_s:.1f} s, the network lost every delivery, {state.lost} in all"


def _noticed(state: DemoState) -> str:
    if state.noticed_s is None or state.outage_s is None:
        return ""
    later_s = state.noticed_s - state.outage_s
    return f"after {later_s:.1f} s without deliveries, a read found a lost change"


def _repaired(state: DemoState) -> str:
    if state.repaired_s is None or state.online_s is None:
        return ""
    later_s = state.repaired_s - state.online_s
    return f"the mirror was right {later_s:.1f} s after the network came back, by itself"


def sums(result: Result) -> list[str]:
    """Return sentences whose numbers add up, for a reader who sees syncd for the first time."""
    changes, doubled = result.changes, result.doubled
    sentences = [
        f"Dreamship made {changes} changes. {doubled} of their deliveries were sent twice.",
        f"Of {changes + doubled} deliveries, {result.sent} arrived and {result.lost} were lost.",
    ]
    if result.repaired == result.lost:
        sentences.append(
            f"That made {result.lost} variants wrong. All were found and repaired, unasked."
        )
    else:
        sentences.append(f"syncd repaired {result.repaired} changes that no delivery had reported.")
    read, changed = result.reconcile.get("items"), result.reconcile.get("changed")
    sentences.append(f"reconcile-now then read all {read} items again and changed {changed}.")
    return sentences
