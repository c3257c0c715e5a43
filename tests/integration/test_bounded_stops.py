"""Every stop ends within its time, also if a dependency of the daemon hangs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from benchmarks import mirrors
from documents import ROOT
from msgspec import json

from syncd.core.signature import HEADER, sign

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Site

# Far below the TimeoutStopSec of the unit, and far above what a loaded machine needs.
SOON_S = 20.0


@contextlib.contextmanager
def serving(
    site: Site,
    *,
    command: list[str] | None = None,
    stderr: Any = subprocess.DEVNULL,
    environ: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon, or another command, that is killed at the end if it still runs."""
    process = subprocess.Popen(
        command or site.command("serve"),
        cwd=site.folder,
        env=site.environ | (environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def full_pipe() -> tuple[int, int]:
    """Return a pipe in which there is no room for one more byte."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * 65536)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n")
    os.set_blocking(writing, True)
    return reading, writing


def post(site: Site, where: Path, body: bytes) -> int:
    """Deliver to a unix socket; return the code."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(where)), timeout=10) as client:
        headers = {HEADER: sign(body, (site.key,))}
        url = "http://shop/webhooks/dreamship"
        return client.post(url, content=body, headers=headers).status_code


def is_answered(where: Path) -> bool:
    """Return whether a daemon listens; its socket file exists some time before that."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(where)) == 0


def test_an_unread_log_blocks_nothing(site: Site, tmp_path: Path) -> None:
    """Deliveries are answered, the heartbeat goes on, and SIGTERM ends the daemon."""
    where = tmp_path / "hook.sock"
    site.configure(webhook={"listen": f"unix:{where}"}, log={"level": "debug"})
    reading, writing = full_pipe()
    with serving(site, stderr=writing, environ={"WATCHDOG_USEC": "400000"}) as process:
        os.close(writing)
        site.until(lambda: is_answered(where))
        site.until(lambda: site.differences == 0)
        for number in range(20):
            assert post(site, where, b"no JSON: a warning, each time %d" % number) == 200
        found = "SELECT daemon_seen_at AS at FROM freshness"
        before = site.rows(found)
        site.until(lambda: site.rows(found) != before, within_s=5)
        process.terminate()
        assert process.wait(SOON_S) == 0
        with open(reading, "rb") as file:  # noqa: PTH123 - a descriptor
            output = file.read().lstrip(b"\n")
    # Lines that nobody read in time are missing; the others are complete.
    assert all(json.decode(line) for line in output.splitlines())


def test_a_log_reader_that_pauses_gets_every_line(site: Site, tmp_path: Path) -> None:
    """A log collector that restarts misses no line."""
    where = tmp_path / "hook.sock"
    site.configure(webhook={"listen": f"unix:{where}"})
    reading, writing = full_pipe()
    with serving(site, stderr=writing) as process:
        os.close(writing)
        site.until(lambda: is_answered(where))
        assert post(site, where, b"no JSON") == 200
        process.terminate()
        with open(reading, "rb") as file:  # noqa: PTH123 - a descriptor
            lines = [json.decode(line) for line in file.read().split(b"\n") if line]
        assert process.wait(SOON_S) == 0
    events = [line["event"] for line in lines]
    assert {"ready", "a delivery was not understood", "stopped"} <= {*events}
    assert "log lines were dropped" not in events


@pytest.fixture
def hanging_names(site: Site) -> dict[str, str]:
    """Have the C library hang while it looks up Dreamship's name: it opens a pipe for that."""
    aliases = site.folder / "aliases"
    os.mkfifo(aliases)
    site.configure(dreamship={"base_url": "https://dreamship-hangs/v1"})
    return {"HOSTALIASES": str(aliases)}


def test_a_hanging_name_lookup_does_not_delay_the_stop(
    site: Site, hanging_names: dict[str, str]
) -> None:
    """The daemon waits for no thread after everything is closed."""
    log = site.folder / "log"
    with log.open("wb") as file, serving(site, stderr=file, environ=hanging_names) as process:
        site.until(lambda: b"sweep begins" in log.read_bytes())
        time.sleep(0.5)
        process.terminate()
        assert process.wait(SOON_S) == 0
    assert json.decode(log.read_bytes().splitlines()[-1])["event"] == "stopped"


def test_ctrl_c_ends_reconcile_now_during_a_name_lookup(
    site: Site, hanging_names: dict[str, str]
) -> None:
    """The name of Dreamship is still being looked up."""
    with serving(site, command=site.command("reconcile-now"), environ=hanging_names) as process:
        site.until(site.mirror.exists)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON_S) == 130


def test_ctrl_c_ends_doctor_during_a_name_lookup(site: Site, hanging_names: dict[str, str]) -> None:
    """It looks up the shop's own name for the test delivery."""
    site.configure(
        dreamship={"base_url": "http://127.0.0.1:9/v1"},
        webhook={"public_url": "https://shop-hangs/webhooks/dreamship"},
    )
    command = site.command("doctor")
    with serving(site, command=command, environ=hanging_names) as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON_S) == 130


ENDS_SOON = (
    "import syncd.daemon.app as d; d.LONGEST_STOP_S = 1.0; import syncd.cli; syncd.cli.main()"
)


def test_a_failing_start_does_not_wait_for_readers(site: Site) -> None:
    """Else the service manager could not start it again."""
    site.configure(webhook={"listen": "nothing of the kind"})
    reading, writing = full_pipe()
    with serving(site, stderr=writing) as process:
        assert process.wait(SOON_S) == 2
    os.close(reading)
    os.close(writing)


def test_a_long_start_can_be_stopped(idle: Site) -> None:
    """Another configuration decides every variant anew: the next start does the rest."""
    idle.mirror.parent.mkdir()
    mirrors.fill(idle.mirror, 100_000)
    log = idle.folder / "log"
    unsellable = "SELECT count(*) AS n FROM variants WHERE sellable = 0"
    idle.configure(availability={"sellable": ["nothing that there is"]})
    with log.open("wb") as file, serving(idle, stderr=file) as process:
        idle.until(lambda: idle.rows(unsellable) != [{"n": 0}])
        process.terminate()
        assert process.wait(SOON_S) == 0
    assert [json.decode(line)["event"] for line in log.read_bytes().splitlines()] == [
        "stopping",
        "stopped",
    ]
    (row,) = idle.rows(unsellable)
    assert 0 < row["n"] < 100_000
    assert idle.rows("PRAGMA quick_check") == [{"quick_check": "ok"}]


def test_a_hanging_disk_does_not_delay_the_stop(site: Site, tmp_path: Path) -> None:
    """After its time the daemon ends as after a power cut, and says so."""
    shutil.copy(ROOT / "tests" / "systemd" / "saboteur.py", tmp_path / "sitecustomize.py")
    order, log = tmp_path / "sabotage", tmp_path / "log"
    command = [sys.executable, "-c", ENDS_SOON, "serve", "--config", str(site.config)]
    environ = {
        "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
        "SABOTEUR": str(order),
    }
    with (
        log.open("wb") as file,
        serving(site, command=command, stderr=file, environ=environ) as process,
    ):
        site.until(lambda: b"sweep ended" in log.read_bytes())
        (tmp_path / "part").write_text("writer")
        (tmp_path / "part").rename(order)
        site.until(lambda: not order.exists())
        time.sleep(0.2)
        process.terminate()
        assert process.wait(SOON_S) == 0
    events = [json.decode(line)["event"] for line in log.read_bytes().splitlines()]
    assert events[-2:] == ["not everything ended in time", "stopped"]
