"""Runs a command of syncd in which reads that only confirm an item are stored after a second.

A test that waits for such a read would wait for up to 25 seconds.
"""

from __future__ import annotations

from syncd.cli import main
from syncd.sync import confirmations

if __name__ == "__main__":
    confirmations.LONGEST_WAIT_S = 1.0
    main()
