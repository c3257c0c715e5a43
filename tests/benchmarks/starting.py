"""The time until the daemon is ready, and the time that a command takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.processes import Place, end
from benchmarks.table import Row

VARIANTS = (1_000, 1_000_000)


def measure(folder: Path, rounds: int) -> list[Row]:
    """Start daemons on a small and on a large mirror in turn, as a service manager does."""
    places: dict[int, Place] = {}
    for size in VARIANTS:
        (folder / str(size)).mkdir()
        places[size] = Place(folder / str(size))
        places[size].fill(size)
    ready: dict[int, list[float]] = {size: [] for size in VARIANTS}
    first: list[float] = []
    versions: list[float] = []
    statuses: list[float] = []
    for _ in range(rounds):
        versions.append(_timed([sys.executable, "-m", "syncd", "--version"]))
        for size, place in places.items():
            ready_s, first_s, status_s = _start(place)
            ready[size].append(ready_s)
            if size == VARIANTS[-1]:
                first.append(first_s)
                statuses.append(status_s)
    small, large = (median(ready[size]) for size in VARIANTS)
    return [
        Row.at_most(
            "start: to READY with 1,000,000 variants", large, 0.5, f"with 1,000: {small:.2f} s", "s"
        ),
        Row.at_most("start: `syncd --version`", median(versions), 0.2, "", "s"),
        Row.at_most(
            "start: `syncd status` with 1,000,000 variants",
            median(statuses),
            0.2,
            f"the first, which counts the mirror: {median(first):.2f} s",
            "s",
        ),
    ]


def _start(place: Place) -> tuple[float, float, float]:
    """Return the seconds until READY=1, and those of the first and the next status."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = place.folder / "notify"
    manager.bind(str(address))
    manager.settimeout(60)
    began_s = time.perf_counter()
    process = subprocess.Popen(
        place.command("serve"),
        env={**os.environ, "NOTIFY_SOCKET": str(address)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while b"READY=1" not in manager.recv(4096):
            pass
        ready_s = time.perf_counter() - began_s
        command = place.command("status", "--json")
        return ready_s, _timed(command), _timed(command)
    finally:
        end(process)
        manager.close()
        address.unlink()


def _timed(command: list[str]) -> float:
    began_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in {0, 1}:
        raise AssertionError(done.stderr.decode())
    return time.perf_counter() - began_s
