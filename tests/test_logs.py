"""Logs: JSON lines for machines, readable ones for people, and a secret in neither."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog
from msgspec import json

from syncd import logs

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
