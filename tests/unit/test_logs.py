"""Logs: JSON lines for machines, readable ones for people, and a secret in neither."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import structlog
from msgspec import json

from syncd import logs
from syncd.core.plain_text import MAX_CHARS
from syncd.log_stream import LogStream

SECRET = "ds_live_0123456789"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


class Terminal(io.StringIO):
    """Somewhere that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class FullDisk(io.StringIO):
    """Somewhere that nothing can be written to."""

    def write(self, text: str, /) -> int:
        raise OSError(28, f"No space left on device for {len(text)} characters")


def log_secrets() -> None:
    """Write one line of each kind that may hold a secret."""
    log = structlog.get_logger("test")
    event = f"key {SECRET} in the event"
    log.info(event, key=SECRET, urls=[f"https://x/?k={SECRET}"], n=7)
    log.warning("nested", headers={"Authorization": f"Bearer {SECRET}"}, fault=OSError(SECRET))
    log.debug("too small to tell")
    try:
        raise ValueError(f"bad key {SECRET}")
    except ValueError:
        log.exception("with a traceback")
    logging.getLogger("somebody.else").warning("theirs: %s", SECRET)
    logging.getLogger("httpx").info("a request nobody wants to read")


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_secret_gets_into_a_line(style: Literal["json", "console"]) -> None:
    """Whoever logged it, in whatever value, and in tracebacks."""
    stream = io.StringIO()
    logs.configure("info", style, secrets=["", SECRET], stream=stream)
    log_secrets()
    said = stream.getvalue()
    assert SECRET not in said
    assert said.count(logs.MASK) >= 7
    assert "too small" not in said
    assert "a request nobody" not in said


def test_machines_get_a_json_object_a_line() -> None:
    """With level and moment; not on a terminal this is what `auto` means."""
    stream = io.StringIO()
    logs.configure("info", "auto", stream=stream)
    log_secrets()
    lines = [json.decode(line) for line in stream.getvalue().splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error", "warning"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["n"] == 7
    assert lines[0]["urls"] == [f"https://x/?k={SECRET}"]
    assert "ValueError" in lines[2]["exception"]


def test_people_get_readable_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, in colour unless NO_COLOR is set."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain, piped = Terminal(), Terminal(), io.StringIO()
    logs.configure("info", "auto", stream=coloured)
    structlog.get_logger("test").info("hello", answer=42)
    assert "\x1b[" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    logs.configure("info", "auto", stream=plain)
    structlog.get_logger("test").info("hello", answer=42)
    monkeypatch.delenv("NO_COLOR")
    logs.configure("info", "console", stream=piped)
    structlog.get_logger("test").info("hello", answer=42)
    for said in (plain.getvalue(), piped.getvalue()):
        assert "hello" in said
        assert "answer=42" in said
        assert "\x1b[" not in said


@pytest.mark.parametrize(
    ("level", "told"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_a_level_holds_for_what_is_below_it(level: str, told: int) -> None:
    """And a second configuration replaces the first, as a reload does."""
    old, stream = io.StringIO(), io.StringIO()
    logs.configure("debug", "json", stream=old)
    logs.configure(level, "json", stream=stream)
    log = structlog.get_logger("test")
    for name in ("debug", "info", "warning", "error"):
        log.log(getattr(logging, name.upper()), name)
    assert len(stream.getvalue().splitlines()) == told
    assert old.getvalue() == ""


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    """The disk that is full may be the log's: a delivery must still get its 503, a read go on."""
    logs.configure("info", "json", stream=FullDisk())
    structlog.get_logger("test").error("a delivery could not be kept")


FORGED = "odd\n2026-01-01 [info] forged\r\x1b[2J\u2028\x00"


@pytest.mark.parametrize("style", ["json", "console"])
def test_nobody_writes_a_line_of_their_own(style: Literal["json", "console"]) -> None:
    """What ends a line, or what a terminal obeys, is written out; a traceback is indented."""
    stream = io.StringIO()
    logs.configure("info", style, stream=stream)
    log = structlog.get_logger("test")
    log.warning(FORGED, fault=FORGED, values={FORGED: [FORGED]})
    logging.getLogger("somebody.else").warning("theirs: %s", FORGED)
    told = stream.getvalue()
    assert len(told.splitlines()) == 2
    assert not set(told) & {"\r", "\x1b", "\u2028", "\x00"}
    try:
        raise ValueError(FORGED)
    except ValueError:
        log.exception("with a traceback")
    _, *more = stream.getvalue().removeprefix(told).splitlines()
    assert all(line.startswith("    ") for line in more)


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_line_has_bounds(style: Literal["json", "console"]) -> None:
    """Whatever is told, a collector takes it; and what was left out is counted."""
    stream = io.StringIO()
    logs.configure("info", style, stream=stream)
    log = structlog.get_logger("test")
    log.warning("long", text="x" * 1_000_000, ids=list(range(100_000)))
    log.warning("many", values={f"value {number}": number for number in range(100_000)})
    try:
        raise ValueError("y" * 1_000_000)
    except ValueError:
        log.exception("a fault")
    told = stream.getvalue()
    assert len(told) < 15_000
    assert "(1000000 characters)" in told
    assert told.count("(100000 in all)") == 2
    assert "Traceback" in told
    assert "ValueError: yyy" in told


def test_a_secret_is_masked_before_anything_is_cut() -> None:
    """One that lies across the bound, and one where a traceback is cut."""
    stream = io.StringIO()
    logs.configure("info", "json", secrets=[SECRET], stream=stream)
    log = structlog.get_logger("test")
    for before in range(MAX_CHARS - len(SECRET), MAX_CHARS + 1):
        log.info("cut", text="x" * before + SECRET)
    try:
        raise ValueError(SECRET * 2000)
    except ValueError:
        log.exception("a fault")
    said = stream.getvalue()
    assert SECRET[:4] not in said
    assert SECRET[-4:] not in said


def test_of_a_secret_that_begins_with_another_nothing_is_left() -> None:
    """Whichever was configured first."""
    stream = io.StringIO()
    logs.configure("info", "json", secrets=[SECRET[:8], SECRET], stream=stream)
    structlog.get_logger("test").info("two", one=SECRET[:8], other=SECRET)
    assert SECRET[:8] not in stream.getvalue()
    assert SECRET[8:] not in stream.getvalue()


def told_of(stream: LogStream) -> list[int]:
    """Return how many lines were dropped, each time that was reported; ends when all is written."""
    assert stream.drain(10)
    return DROPPED[stream.fileno()]


DROPPED: dict[int, list[int]] = {}


@pytest.fixture
def piped() -> Iterator[tuple[int, LogStream]]:
    """Give a stream into a pipe, and the end that nobody reads yet."""
    reading, writing = os.pipe()
    counts = DROPPED[writing] = []
    yield reading, LogStream(writing, on_dropped=counts.append)
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def read_lines(reading: int, last: bytes) -> list[bytes]:
    """Read lines until the last one is there."""
    told = b""
    while not told.endswith(last):
        told += os.read(reading, 65536)
    return told.splitlines()


def test_a_reader_that_comes_back_is_told_how_many_lines_are_missing(
    piped: tuple[int, LogStream],
) -> None:
    """What waits is bounded; the gap is one, and its size is known."""
    reading, stream = piped
    lines = [b"%07d %s" % (number, b"x" * 1000) for number in range(4000)]
    began_s = time.monotonic()
    for line in lines:
        stream.write(f"{line.decode()}\n")
    assert time.monotonic() - began_s < 5
    assert stream.dropped > 1000
    kept = len(lines) - stream.dropped
    told = read_lines(reading, lines[kept - 1] + b"\n")
    assert told == lines[:kept]
    assert told_of(stream) == [stream.dropped]
    stream.write("after\n")
    assert read_lines(reading, b"after\n") == [b"after"]


def test_a_report_of_dropped_lines_is_never_dropped() -> None:
    """Also when others have filled the stream again before the report is written."""
    reading, writing = os.pipe()
    reports: list[int] = []

    def fill() -> None:
        for _ in range(3000):
            stream.write("x" * 1000 + "\n")

    def report(lines: int) -> None:
        if not reports:
            other = threading.Thread(target=fill)
            other.start()
            other.join()
        reports.append(lines)
        stream.write(f"{lines} dropped\n")

    stream = LogStream(writing, on_dropped=report)
    fill()
    told, dropped = b"", stream.dropped
    while dropped == 0 or dropped > sum(
        int(line.split()[0]) for line in told.splitlines() if line.endswith(b" dropped")
    ):
        assert select.select([reading], [], [], 20)[0], reports
        told += os.read(reading, 1 << 20)
        dropped = stream.dropped
    assert len(reports) > 1
    assert sum(reports) == dropped
    os.close(reading)
    os.close(writing)


def test_a_reader_that_is_gone_is_no_fault(piped: tuple[int, LogStream]) -> None:
    """A closed pipe: each line is counted, and nobody fails."""
    reading, stream = piped
    os.close(reading)
    for number in range(10):
        stream.write(f"{number}\n")
    assert told_of(stream) == []
    assert stream.dropped == 10


def test_a_full_disk_tears_no_two_lines_into_one(tmp_path: Path) -> None:
    """What was written of a line stays; the next one that fits begins a line of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    counts: list[int] = []
    with (tmp_path / "log").open("wb") as file:
        stream = LogStream(file.fileno(), on_dropped=counts.append)
        stream.write("first\n")
        assert stream.drain(10)
        # Python ignores SIGXFSZ, so that the write fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            stream.write("second\n")
            stream.write("third\n")
            assert stream.drain(10)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        stream.write("fourth\n")
        assert stream.drain(10)
    assert (tmp_path / "log").read_text() == "first\nseco\nfourth\n"
    assert (counts, stream.dropped) == ([2], 2)


def test_a_descriptor_that_does_not_wait_loses_no_line(piped: tuple[int, LogStream]) -> None:
    """Whoever shares it may have made it so; a full pipe is no fault then either."""
    reading, stream = piped
    os.set_blocking(stream.fileno(), False)
    lines = [b"%04d %s" % (number, b"x" * 1000) for number in range(500)]
    for line in lines:
        stream.write(f"{line.decode()}\n")
    assert read_lines(reading, lines[-1] + b"\n") == lines
    assert stream.dropped == 0


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


def test_a_line_of_the_log_says_how_many_are_missing() -> None:
    """In the form of the log, like any other; the process waits a moment for its reader."""
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


def test_what_nobody_expected_is_a_line_too() -> None:
    """A warning, the end of a thread, of a finalizer and of the process: JSON, and masked."""
    done = subprocess.run(
        [sys.executable, "-c", UNEXPECTED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert SECRET not in done.stderr
    lines = [json.decode(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "critical", "critical", "critical"]
    assert "RuntimeError: ******** at the end" in lines[3]["exception"]
