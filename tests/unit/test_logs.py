"""The log: JSON lines for machines, readable lines for people, and no secret in either."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import resource
import select
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
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class FullDisk(io.StringIO):
    """A stream that fails at each write."""

    def write(self, text: str, /) -> int:
        raise OSError(28, f"No space left on device for {len(text)} characters")


def log_secrets() -> None:
    """Write one line of each kind that may hold a secret."""
    log = structlog.get_logger("test")
    event = f"key {SECRET} in the event"
    log.info(event, key=SECRET, urls=[f"https://x/?k={SECRET}"], n=7)
    log.warning("nested", headers={"Authorization": f"Bearer {SECRET}"}, error=OSError(SECRET))
    log.debug("below the level of the log")
    try:
        raise ValueError(f"bad key {SECRET}")
    except ValueError:
        log.exception("with a traceback")
    logging.getLogger("somebody.else").warning("theirs: %s", SECRET)
    logging.getLogger("httpx").info("a request nobody wants to read")


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_are_masked_in_every_line(style: Literal["json", "console"]) -> None:
    """In events, values, tracebacks and lines of other libraries."""
    stream = io.StringIO()
    logs.configure("info", style, secrets=["", SECRET], stream=stream)
    log_secrets()
    message = stream.getvalue()
    assert SECRET not in message
    assert message.count(logs.MASK) >= 7
    assert "below the level" not in message
    assert "a request nobody" not in message


def test_json_lines_have_a_level_and_a_timestamp() -> None:
    """JSON is the format when stderr is not a terminal."""
    stream = io.StringIO()
    logs.configure("info", "auto", stream=stream)
    log_secrets()
    lines = [json.decode(line) for line in stream.getvalue().splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error", "warning"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["n"] == 7
    assert lines[0]["urls"] == [f"https://x/?k={SECRET}"]
    assert "ValueError" in lines[2]["exception"]


def test_the_console_format_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
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
    for message in (plain.getvalue(), piped.getvalue()):
        assert "hello" in message
        assert "answer=42" in message
        assert "\x1b[" not in message


def test_a_readable_line_begins_with_time_and_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual level is left out; each other one follows the event."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    logs.configure("debug", "auto", stream=stream)
    log = structlog.get_logger("test")
    log.info("listening", address="unix:/x")
    log.warning("sweep ended", result="partial")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ listening +address=unix:/x", first)
    assert re.fullmatch(r"[\d-]+ [\d:]+Z sweep ended +\[warning\] result=partial", second)


def test_progress_stays_below_the_lines_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line erases it first and draws it again; at the end nothing of it is left."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    stream = Terminal()
    logs.configure("info", "auto", stream=stream)
    assert logs.has_progress()
    logs.show_progress("9 of 60 items\x1b[2J" + "." * 100)
    structlog.get_logger("test").info("ready")
    logs.show_progress("")
    drawn, line, end = stream.getvalue().split("\r\x1b[K")[1:]
    assert drawn.startswith("9 of 60 items\\x1b[2J")
    assert len(drawn) == 79
    assert line.endswith(f"\n{drawn}")
    assert "ready" in line
    assert end == ""


@pytest.mark.parametrize("why", ["json", "no terminal", "dumb", "ci"])
def test_there_is_no_progress_where_it_would_be_lines(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """In JSON, in a file, on a terminal that cannot erase, and in a log of a service."""
    monkeypatch.setenv("TERM", "dumb" if why == "dumb" else "xterm")
    monkeypatch.delenv("CI", raising=False)
    if why == "ci":
        monkeypatch.setenv("CI", "true")
    stream = io.StringIO() if why == "no terminal" else Terminal()
    logs.configure("info", "json" if why == "json" else "console", stream=stream)
    assert not logs.has_progress()
    logs.show_progress("9 of 60 items")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("level", "lines"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_the_level_filters_less_important_lines(level: str, lines: int) -> None:
    """A second configuration replaces the first, as after a reload."""
    old, stream = io.StringIO(), io.StringIO()
    logs.configure("debug", "json", stream=old)
    logs.configure(level, "json", stream=stream)
    log = structlog.get_logger("test")
    for name in ("debug", "info", "warning", "error"):
        log.log(getattr(logging, name.upper()), name)
    assert len(stream.getvalue().splitlines()) == lines
    assert old.getvalue() == ""


def test_an_unwritable_log_raises_nothing() -> None:
    """The log's disk may be full: a delivery still gets its 503, and reads go on."""
    logs.configure("info", "json", stream=FullDisk())
    structlog.get_logger("test").error("a delivery could not be stored")


FORGED = "odd\n2026-01-01 [info] forged\r\x1b[2J\u2028\x00"


@pytest.mark.parametrize("style", ["json", "console"])
def test_logged_text_cannot_forge_a_line(style: Literal["json", "console"]) -> None:
    """Line ends and control characters are escaped; a traceback is indented."""
    stream = io.StringIO()
    logs.configure("info", style, stream=stream)
    log = structlog.get_logger("test")
    log.warning(FORGED, error=FORGED, values={FORGED: [FORGED]})
    logging.getLogger("somebody.else").warning("theirs: %s", FORGED)
    output = stream.getvalue()
    assert len(output.splitlines()) == 2
    assert not set(output) & {"\r", "\x1b", "\u2028", "\x00"}
    try:
        raise ValueError(FORGED)
    except ValueError:
        log.exception("with a traceback")
    _, *more = stream.getvalue().removeprefix(output).splitlines()
    assert all(line.startswith("    ") for line in more)


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_line_has_a_maximum_length(style: Literal["json", "console"]) -> None:
    """A collector accepts each line; the line says how much was left out."""
    stream = io.StringIO()
    logs.configure("info", style, stream=stream)
    log = structlog.get_logger("test")
    log.warning("long", text="x" * 1_000_000, ids=list(range(100_000)))
    log.warning("many", values={f"value {number}": number for number in range(100_000)})
    try:
        raise ValueError("y" * 1_000_000)
    except ValueError:
        log.exception("a fault")
    output = stream.getvalue()
    assert len(output) < 15_000
    assert "(1000000 characters)" in output
    assert output.count("(100000 in all)") == 2
    assert "Traceback" in output
    assert "ValueError: yyy" in output


def test_secrets_are_masked_before_lines_are_cut() -> None:
    """A secret may cross the bound of a text or of a traceback."""
    stream = io.StringIO()
    logs.configure("info", "json", secrets=[SECRET], stream=stream)
    log = structlog.get_logger("test")
    for before in range(MAX_CHARS - len(SECRET), MAX_CHARS + 1):
        log.info("cut", text="x" * before + SECRET)
    try:
        raise ValueError(SECRET * 2000)
    except ValueError:
        log.exception("a fault")
    # A time may have the same digits as a secret.
    message = re.sub(r"\d\d:\d\d:\d\d\.\d+Z", "", stream.getvalue())
    assert SECRET[:4] not in message
    assert SECRET[-4:] not in message


def test_a_secret_that_starts_with_another_is_masked_whole() -> None:
    """In either order of configuration."""
    stream = io.StringIO()
    logs.configure("info", "json", secrets=[SECRET[:8], SECRET], stream=stream)
    structlog.get_logger("test").info("two", one=SECRET[:8], other=SECRET)
    assert SECRET[:8] not in stream.getvalue()
    assert SECRET[8:] not in stream.getvalue()


def reported_by(stream: LogStream) -> list[int]:
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
    output = b""
    while not output.endswith(last):
        output += os.read(reading, 65536)
    return output.splitlines()


def test_a_gap_in_the_log_reports_the_number_of_dropped_lines(
    piped: tuple[int, LogStream],
) -> None:
    """The buffer is bounded."""
    reading, stream = piped
    lines = [b"%07d %s" % (number, b"x" * 1000) for number in range(4000)]
    began_s = time.monotonic()
    for line in lines:
        stream.write(f"{line.decode()}\n")
    assert time.monotonic() - began_s < 5
    assert stream.dropped > 1000
    stored = len(lines) - stream.dropped
    output = read_lines(reading, lines[stored - 1] + b"\n")
    assert output == lines[:stored]
    assert reported_by(stream) == [stream.dropped]
    stream.write("after\n")
    assert read_lines(reading, b"after\n") == [b"after"]


def test_a_report_of_dropped_lines_is_never_dropped() -> None:
    """Even if other lines fill the stream before the report is written."""
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
    output, dropped = b"", stream.dropped
    while dropped == 0 or dropped > sum(
        int(line.split()[0]) for line in output.splitlines() if line.endswith(b" dropped")
    ):
        assert select.select([reading], [], [], 20)[0], reports
        output += os.read(reading, 1 << 20)
        dropped = stream.dropped
    assert len(reports) > 1
    assert sum(reports) == dropped
    os.close(reading)
    os.close(writing)


def test_a_closed_log_pipe_raises_nothing(piped: tuple[int, LogStream]) -> None:
    """Each lost line is counted."""
    reading, stream = piped
    os.close(reading)
    for number in range(10):
        stream.write(f"{number}\n")
    assert reported_by(stream) == []
    assert stream.dropped == 10


def test_a_full_disk_never_joins_two_lines(tmp_path: Path) -> None:
    """A partial line stays; the next complete line starts on a new line."""
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


def test_a_non_blocking_descriptor_loses_no_line(piped: tuple[int, LogStream]) -> None:
    """Another process may have set O_NONBLOCK on the shared pipe."""
    reading, stream = piped
    os.set_blocking(stream.fileno(), False)
    lines = [b"%04d %s" % (number, b"x" * 1000) for number in range(500)]
    for line in lines:
        stream.write(f"{line.decode()}\n")
    assert read_lines(reading, lines[-1] + b"\n") == lines
    assert stream.dropped == 0
