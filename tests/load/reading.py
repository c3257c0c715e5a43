"""Read one answer like the daemon, in a separate process, and measure the cost.

Run as `python -m load.reading URL item|page`; prints one JSON object.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import Any

import uvloop
from msgspec import json

from syncd.dreamship.client import DreamshipClient
from syncd.errors import SourceError

TICK_S = 0.002


def memory_mb(what: str) -> float:
    """Return VmRSS, or VmHWM, which is its maximum."""
    with open("/proc/self/status") as file:  # noqa: PTH123 - procfs
        return next(int(line.split()[1]) for line in file if line.startswith(what)) / 1024


async def longest_gap_s() -> float:
    """Tick until cancelled; return the longest time between two ticks."""
    longest_s, last_s = 0.0, time.monotonic()
    try:
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
    except asyncio.CancelledError:
        return max(longest_s, time.monotonic() - last_s)


async def read(base_url: str, what: str) -> dict[str, Any]:
    """Return the result of one read, its longest gap and its memory."""
    client = DreamshipClient(
        base_url, "canary-key-0123", timeout_s=60, now=lambda: datetime.now(UTC)
    )
    before_mb, began_s = memory_mb("VmRSS"), time.monotonic()
    ticking = asyncio.create_task(longest_gap_s())
    await asyncio.sleep(0)
    error, pieces = "", 0
    try:
        if what == "item":
            pieces = len((await client.item(7)).variants or ())
        else:
            pieces = len((await client.page(None, 1)).items)
    except SourceError as reason:
        error = f"{type(reason).__name__}: {reason}"
    took_s = time.monotonic() - began_s
    ticking.cancel()
    gap_s = await ticking
    await client.aclose()
    return {
        "error": error,
        "pieces": pieces,
        "seconds": round(took_s, 2),
        "gap_ms": round(1000 * gap_s),
        "more_mb": round(memory_mb("VmHWM") - before_mb),
    }


def main() -> None:
    """Print the cost of one read."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.encode(runner.run(read(*sys.argv[1:3]))).decode())


if __name__ == "__main__":
    main()
