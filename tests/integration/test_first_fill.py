"""`serve` on a terminal shows how far the first fill of the mirror is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from terminals import on_terminal

from syncd.core.jobs import SweepProgress
from syncd.daemon.fill_progress import line

if TYPE_CHECKING:
    from conftest import Site


@pytest.mark.parametrize(
    ("total", "left_s", "shown"),
    [
        (None, None, "Filling the mirror: listing the catalogue"),
        (300, None, "Filling the mirror: 120 of 300 items"),
        (300, 4.4, "Filling the mirror: 120 of 300 items, 4 s left"),
        (300, 245, "Filling the mirror: 120 of 300 items, 4 min 05 s left"),
        (90_000, 119_940, "Filling the mirror: 120 of 90000 items, 33 h 19 min left"),
    ],
)
def test_the_progress_is_one_short_line(
    total: int | None, left_s: float | None, shown: str
) -> None:
    """Items, and the time that is left."""
    progress = SweepProgress(1, datetime.now(UTC), 120, total, 180)
    left = None if left_s is None else timedelta(seconds=left_s)
    assert line(progress, left) == shown


def test_a_terminal_shows_the_first_fill_below_the_log(site: Site) -> None:
    """The line is replaced, and is gone when the mirror is filled. A second start has none."""
    environ = {name: value for name, value in site.environ.items() if name != "CI"}
    site.configure(dreamship={"calls_per_minute": 240})
    with on_terminal(site.command("serve"), cwd=site.folder, environ=environ) as terminal:
        terminal.read_until("Z ready ")
        terminal.read_until("\r\x1b[KFilling the mirror: ")
        terminal.read_until(" of 5 items")
        terminal.read_until("Z sweep ended ")
        terminal.type("\x03")
        terminal.read_until("stopped")
        assert terminal.end() == 0
    assert "Filling" not in terminal.shown.rpartition("\x1b[K")[2]
    with on_terminal(site.command("serve"), cwd=site.folder, environ=environ) as terminal:
        terminal.read_until("Z ready ")
        terminal.type("\x03")
        assert terminal.end() == 0
    assert "Filling" not in terminal.shown
