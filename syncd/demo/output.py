"""The play as seen: live on a terminal, in plain lines without one."""

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
from syncd.demo.run import Frame
from syncd.printing import show

PLAIN_EVERY_S = 2.0
_ACTS = ("starting", "filling", "delivering", "outage", "reconciling", "comparing")


class PlainShow:
    """One line when an act begins, and one every two seconds."""

    def __init__(self) -> None:
        self._act = ""
        self._shown_s = -PLAIN_EVERY_S

    def __call__(self, frame: Frame) -> None:
        """Show a frame, if there is something new to say."""
        if frame.act != self._act:
            self._act = frame.act
            if frame.explanation:
                show(f"[{frame.elapsed_s:5.1f} s] {frame.act}: {frame.explanation}", err=True)
        elif frame.elapsed_s - self._shown_s >= PLAIN_EVERY_S:
            self._shown_s = frame.elapsed_s
            show(f"[{frame.elapsed_s:5.1f} s]   {_line(frame)}", err=True)


def _line(frame: Frame) -> str:
    look = frame.look
    far = "-" if look is None else f"{look.differences} of {look.variants} differ"
    return (
        f"{far}; Dreamship: {frame.flipped} changes, {frame.doubled} sent twice; "
        f"deliveries: {frame.sent} taken, {frame.underway} under way, {frame.lost} lost"
    )


@contextmanager
def live_show() -> Iterator[Any]:
    """Give a show that redraws itself on the terminal's last lines."""
    with Live(console=Console(stderr=True), refresh_per_second=8, transient=True) as live:
        yield lambda frame: live.update(_drawn(frame))


def _drawn(frame: Frame) -> Group:
    acts = Text()
    now = _ACTS.index(frame.act) if frame.act in _ACTS else len(_ACTS)
    for index, act in enumerate(_ACTS):
        style = "bold reverse" if index == now else "green" if index < now else "dim"
        acts.append(f" {act} ", style=style)
    return Group(
        acts,
        Text(frame.explanation, style="italic"),
        Panel(_numbers(frame), title=f"syncd demo, {frame.elapsed_s:.0f} s", title_align="left"),
        _changes(frame),
    )


def _numbers(frame: Frame) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    look, sweep = frame.look, frame.sweep
    if look is not None:
        style = "bold green" if look.differences == 0 else "bold yellow"
        table.add_row(
            "mirror and Dreamship",
            Text(f"{look.differences} of {look.variants} variants differ", style=style),
        )
        table.add_row("", f"{look.sellable} on sale, {look.verifying} being verified")
    table.add_row("at Dreamship", f"{frame.flipped} changes, {frame.doubled} sent twice")
    taken = Text(f"{frame.sent} taken, {frame.underway} under way, ")
    taken.append(*((f"{frame.lost} lost", "bold red") if frame.lost else ("none lost",)))
    table.add_row("deliveries", taken)
    outcomes = ", ".join(
        f"{n} {name}" for name, n in sorted(frame.outcomes.items()) if name != UNREACHABLE
    )
    table.add_row("answers", Text(visible(outcomes or "-")))
    if sweep is not None:
        bar = ProgressBar(total=sweep.total or 100, completed=sweep.checked, width=40)
        table.add_row("sweep", bar)
        table.add_row("", f"{sweep.checked} of {sweep.total or '?'} items")
    return table


def _changes(frame: Frame) -> Table:
    table = Table(title="latest changes in the mirror", title_justify="left", box=None)
    for name in ("variant", "was", "is", "found by"):
        table.add_column(name, min_width=12)
    for one in [] if frame.look is None else frame.look.last_changes:
        found = f"{one.cause}, no delivery reported" if one.missed else one.cause
        table.add_row(
            str(one.variant_id),
            _value(one.old_availability, "(new)", is_sellable=one.old_sellable),
            _value(one.availability, "(removed)", is_sellable=one.sellable),
            Text(found, "yellow" if one.missed else ""),
        )
    return table


def _value(availability: str | None, nothing: str, *, is_sellable: bool) -> Text:
    """Return a value, and whether it is sold: a doubt takes off sale what has the same value."""
    if availability is None:
        return Text(nothing)
    # Text, for a value may look like markup.
    told = visible(shortened(availability))
    return Text(f"{told}, {'on' if is_sellable else 'off'} sale")
