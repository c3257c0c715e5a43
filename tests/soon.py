"""Runs a command of syncd with shorter waits, so that tests do not wait for its heartbeat.

A read that only confirms an item waits for up to 25 seconds, and so does the next heartbeat.
"""

from __future__ import annotations

from syncd.cli import main
from syncd.daemon import heartbeat
from syncd.sync import confirmations

if __name__ == "__main__":
    confirmations.LONGEST_WAIT_S = 1.0
    heartbeat.HEARTBEAT_S = 2.0
    main()
