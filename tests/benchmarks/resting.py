"""The cost of a daemon that has nothing to do."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from msgspec import Struct

from benchmarks.processes import Place, Running
from benchmarks.sweeping import swept
from benchmarks.table import Row

FEW, MANY = 10_000, 1_000_000
# After the start: the first clean-up, and the first looks at everything.
WARM_UP_S = 30
SECONDS = 180


class Rest(Struct, frozen=True):
    """One daemon for a while."""

    written_kb_per_minute: float
    cpu_percent: float
    memory_mb: float


def measure(folder: Path, rounds: int) -> list[Row]:
    """Measure three daemons beside each other, once: each uses next to nothing."""
    del rounds
    with contextlib.ExitStack() as stack:
        _, few, _ = stack.enter_context(swept(folder / "few", FEW))
        _, many, _ = stack.enter_context(swept(folder / "many", MANY))
        (folder / "unreachable").mkdir()
        # A sweep is due at the start and cannot begin, as in an outage of Dreamship.
        place = Place(folder / "unreachable", every="30m")
        place.fill(FEW)
        unreachable = stack.enter_context(place.daemon())
        time.sleep(WARM_UP_S)
        rests = _watch([few, many, unreachable])
    reached, of_many, unreached = rests
    written = f"with {MANY:,} variants {of_many.written_kb_per_minute:.0f} KB"
    used = f"with {MANY:,} variants {of_many.cpu_percent:.2f} %"
    rows = [
        Row.at_most("rest: share of a core", reached.cpu_percent, 0.2, used, "%"),
        Row.at_most(
            "rest, Dreamship unreachable: share of a core", unreached.cpu_percent, 0.2, unit="%"
        ),
        Row.at_most(f"rest: memory with {FEW:,} variants", reached.memory_mb, 50, unit="MB"),
        Row.at_most(f"rest: memory with {MANY:,} variants", of_many.memory_mb, 60, unit="MB"),
    ]
    if not reached.written_kb_per_minute:
        return [Row.skipped("rest: written a minute", "the kernel does not count it here"), *rows]
    return [
        Row.at_most(
            "rest: written a minute", reached.written_kb_per_minute, 15, written, "KB"
        ),
        Row.at_most(
            "rest, Dreamship unreachable: written a minute",
            unreached.written_kb_per_minute, 40, unit="KB",
        ),
        *rows,
    ]  # fmt: skip


def _watch(daemons: list[Running]) -> list[Rest]:
    before = [(daemon.written_bytes, daemon.cpu_s) for daemon in daemons]
    time.sleep(SECONDS)
    return [
        Rest(
            (daemon.written_bytes - written) / 1024 * 60 / SECONDS,
            100 * (daemon.cpu_s - cpu_s) / SECONDS,
            daemon.memory_mb,
        )
        for daemon, (written, cpu_s) in zip(daemons, before, strict=True)
    ]
