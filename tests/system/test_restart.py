"""A listening socket that outlives the daemon: no request is refused, reset or answered wrongly.

`SYNCD_RESTARTS=100` restarts more often; by hand: `python tests/load/restart.py --restarts 100`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from load.restart import restart
from load.station import free_port

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Site

RESTARTS = int(os.environ.get("SYNCD_RESTARTS", "3"))


@pytest.mark.parametrize("per_second", [None, 200.0], ids=["busy", "with idle connections"])
def test_restarts_under_load_refuse_no_request(tmp_path: Path, per_second: float | None) -> None:
    """The old process or the next one answers each with 200."""
    done = restart(tmp_path, restarts=RESTARTS, seed=RESTARTS, per_second=per_second)
    assert done.problems == []
    assert done.report.statuses.keys() == {"200"}
    assert (done.report.refused, done.report.reset) == (0, 0)
    # A connection that was kept may be closed just while a request is on its way, which no server
    # can avoid; each answer that says so beforehand makes it rare (0 in 200 restarts by hand).
    assert done.report.raced <= 1
    assert done.longest_stop_s < 10
    assert done.report.longest_wait_s < 20
    assert len(done.report.accepted) > 20 * RESTARTS


def test_a_socket_of_systemd_holds_requests_until_the_daemon_starts(idle: Site) -> None:
    """Requests that arrived before the daemon are answered."""
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("systemd-socket-activate is not installed")
    port = free_port()
    command = [activate, f"--listen=127.0.0.1:{port}", "--fdname=webhook", *idle.command("serve")]
    process = subprocess.Popen(
        command, cwd=idle.folder, env=idle.environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        assert b"Listening" in process.stderr.readline()
        answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20, trust_env=False)
        assert answer.status_code == 200
        assert idle.syncd("status").returncode in {0, 1}
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
