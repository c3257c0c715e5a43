"""The log of a process at its end, and of exceptions that no code catches."""

from __future__ import annotations

import subprocess
import sys

from msgspec import json

SECRET = "ds_live_0123456789"


DROPPING = """
import structlog, sys
from syncd import log_stream, logs
log_stream.MAX_WAITING_BYTES = 10_000
logs.never_wait()
logs.configure("info", "json")
for number in range(1000):
    structlog.get_logger().info("y" * 500)
print("logged", flush=True)
while not sys.stderr.drain(10):
    pass
"""


def test_the_exit_waits_briefly_and_reports_dropped_lines() -> None:
    """In the format of the log."""
    with subprocess.Popen(
        [sys.executable, "-c", DROPPING], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"logged\n"
        lines = [json.decode(line) for line in process.stderr.read().splitlines()]
    assert process.returncode == 0
    gaps = [line["lines"] for line in lines if line["event"] == "log lines were dropped"]
    assert gaps
    assert sum(gaps) == 1000 - (len(lines) - len(gaps)) > 0


UNEXPECTED = f"""
import threading, warnings
from syncd import logs
logs.configure("info", "json", secrets=["{SECRET}"])
logs.catch_all()
warnings.warn("a warning about {SECRET}")
thread = threading.Thread(target=lambda: int("{SECRET}"))
thread.start()
thread.join()
class Odd:
    def __del__(self):
        raise LookupError("{SECRET} in a finalizer")
Odd()
raise RuntimeError("{SECRET} at the end")
"""


def test_uncaught_exceptions_and_warnings_are_masked_json_lines() -> None:
    """From a thread, a finalizer, a warning and the end of the process."""
    done = subprocess.run(
        [sys.executable, "-c", UNEXPECTED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert SECRET not in done.stderr
    lines = [json.decode(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "critical", "critical", "critical"]
    assert "RuntimeError: ******** at the end" in lines[3]["exception"]
