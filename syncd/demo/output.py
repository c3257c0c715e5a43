"""The output of the demo: live on a terminal, otherwise in plain lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from syncd.core.plain_text import shortened, visible
from syncd.demo.fake_dreamship import UNREACHABLE
from syncd.demo.run import DemoState
from syncd.printing import show

PLAIN_EVERY_S = 2.0
_PHASES = ("starting", "filling", "delivering", "outage", "repairing", "checking", "comparing")


class PlainOutput:
    """One line at the beginning of a phase, and one every two seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._shown_s = -PLAIN_EVERY_S

    def __call__(self, state: DemoState) -> None:
        """Print a line if a phase has begun, or two seconds have passed."""
        if state.phase != self._phase:
            self._phase = state.phase
            if state.explanation:
                show(f"[{state.elapsed_s:5.1f} s] {state.phase}: {state.explanation}", err=True)
        elif state.elapsed_s - self._shown_s >= PLAIN_EVERY_S:
            self._shown_s = state.elapsed_s
            show(f"[{state.elapsed_s:5.1f} s]   {_line(state)}", err=True)


def _line(state: DemoState) -> str:
    mirror = state.comparison
    differences = "-" if mirror is None else f"{mirror.differences} of {mirror.variants} differ"
    return (
        f"{differences}; Dreamship: {state.flipped} changes, {state.doubled} sent twice; "
        f"deliveries: {state.sent} accepted, {state.in_flight} in flight, {state.lost} lost"
    )


@contextmanager
def live_output() -> Iterator[Any]:
    """Yield a function that draws each state over the previous one on the terminal."""
    with Live(console=Console(stderr=True), refresh_per_second=8, transient=True) as live:
        yield lambda state: live.update(_draw(state))


def _draw(state: DemoState) -> Group:
    phases = Text()
    current = _PHASES.index(state.phase) if state.phase in _PHASES else len(_PHASES)
    for index, phase in enumerate(_PHASES):
        style = "bold reverse" if index == current else "green" if index < current else "dim"
        phases.append(f" {phase} ", style=style)
    return Group(
        phases,
        Text(state.explanation, style="italic"),
        Panel(_numbers(state), title=f"syncd demo, {state.elapsed_s:.0f} s", title_align="left"),
        _changes(state),
    )


def _numbers(state: DemoState) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    mirror, sweep = state.comparison, state.sweep
    if mirror is not None:
        style = "bold green" if mirror.differences == 0 else "bold yellow"
        table.add_row(
            "mirror and Dreamship",
            Text(f"{mirror.differences} of {mirror.variants} variants differ", style=style),
        )
        table.add_row("", f"{mirror.sellable} sellable, {mirror.verifying} verifying")
    table.add_row("at Dreamship", f"{state.flipped} changes, {state.doubled} sent twice")
    counts = Text(f"{state.sent} accepted, {state.in_flight} in flight, ")
    counts.append(*((f"{state.lost} lost", "bold red") if state.lost else ("none lost",)))
    table.add_row("deliveries", counts)
    outcomes = ", ".join(
        f"{count} {name}" for name, count in sorted(state.outcomes.items()) if name != UNREACHABLE
    )
    table.add_row("answers", Text(visible(outcomes or "-")))
    if sweep is not None:
        bar = ProgressBar(total=sweep.total or 100, completed=sweep.checked, width=40)
        table.add_row("sweep", bar)
        table.add_row("", f"{sweep.checked} of {sweep.total or '?'} items")
    return table


def _changes(state: DemoState) -> Table:
    table = Table(title="latest changes in the mirror", title_justify="left", box=None)
    for name in ("variant", "before", "now", "cause"):
        table.add_column(name, min_width=12)
    for change in [] if state.comparison is None else state.comparison.last_changes:
        cause = f"{change.cause}, missed by deliveries" if change.missed else change.cause
        table.add_row(
            str(change.variant_id),
            _value(change.old_availability, "(new)", is_sellable=change.old_sellable),
            _value(change.availability, "(removed)", is_sellable=change.sellable),
            Text(cause, "yellow" if change.missed else ""),
        )
    return table


def _value(availability: str | None, absent: str, *, is_sellable: bool) -> Text:
    """Return a value and whether it is sellable; a `verifying` variant keeps its value."""
    if availability is None:
        return Text(absent)
    # rich reads markup in a str, but not in a Text.
    shown = visible(shortened(availability))
    return Text(f"{shown}, {'sellable' if is_sellable else 'not sellable'}")
