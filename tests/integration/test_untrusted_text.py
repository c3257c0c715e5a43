"""Text of others stays text: on a terminal, in JSON, in the log and on the page."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

import httpx
import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import convert, json
from msgspec.structs import replace

from syncd import logs
from syncd.cli import run
from syncd.control import client
from syncd.control.messages import Differences
from syncd.core.jobs import SweepSummary
from syncd.core.model import ItemRead, SourceVariant, VariantDetails
from syncd.core.plain_text import visible
from syncd.core.policy import Policy
from syncd.core.records import Change, ReplayResult
from syncd.core.status_document import StatusDocument
from syncd.core.timestamps import to_text
from syncd.dreamship.client import DreamshipClient
from syncd.errors import SourceUnreachable, SyncdError
from syncd.store import reads
from syncd.store.connection import open_for_writing

if TYPE_CHECKING:
    from conftest import Site

# Set the title, clear the screen, a link, an 8-bit CSI, a bell, another line, another column,
# right to left, isolates, no width, a line separator, a tag character; markup; and plain text.
NASTY = (
    *("\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x1b]8;;http://evil/\x1b\\x\x1b]8;;\x1b\\", "\x9b2J"),
    *("\a", "\b", "\n   9  forged", "\r", "\t", "\v", "\0", "\x7f", "\x85", "\x90q\x9c"),
    *("\u202e", "\u202a", "\u2066", "\u2069", "\u200f", "\u061c", "\u200b", "\u200d", "\ufeff"),
    *("\u2028", "\u2029", "\U000e0041", "\xad", "[red]", "[link=http://evil]x[/link]", "[/]"),
    *("Mug", "é", "\N{SKULL}", "\u3000", "日本", "%s {} \\", "`"),
)
TEXT = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
VARIANT_ID = 48211
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def hidden(text: str) -> set[str]:
    """Return the invisible or control characters of a text, except line ends."""
    return {one for one in text if unicodedata.category(one)[0] == "C" or one in "\u2028\u2029"} - {
        "\n"
    }


# The commands, in this process.


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def mirror(
    tmp_path_factory: pytest.TempPathFactory,
    open_site: Callable[..., AbstractContextManager[Site]],
) -> Iterator[Site]:
    """Give a site with a mirror of one variant, no running Dreamship, and no colours."""
    with (
        open_site(tmp_path_factory.mktemp("foreign"), items=1) as site,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in set(os.environ) - set(site.environ):
            patch.delenv(name)
        patch.setenv("NO_COLOR", "1")
        site.configure(dreamship={"base_url": "http://127.0.0.1:9"})
        site.mirror.parent.mkdir()
        with closing(open_for_writing(site.mirror)) as writer:
            output = (SourceVariant(VARIANT_ID, "in_stock", VariantDetails("a", "b", "c")),)
            observed = ItemRead(77, "Mug", output, NOW, NOW)
            policy = Policy(frozenset({"in_stock"}), settle=timedelta(seconds=60))
            reads.apply(writer, observed, policy, now=NOW)
            writer.execute(
                """INSERT INTO deliveries (event_id, content_key, received_at, variant_id, outcome,
                       rule)
                   VALUES ('e', '', ?, ?, 'quarantined', NULL),
                          ('f', '', ?, ?, 'applied', 'newer')""",
                (to_text(NOW), VARIANT_ID, to_text(NOW), VARIANT_ID),
            )
        yield site


def fill(site: Site, text: str) -> None:
    """Put this text into every field that the source or a sender controls."""
    with closing(sqlite3.connect(site.mirror)) as connection, connection:
        conflicting_values = json.encode([text]).decode()
        for sql, values in (
            ("UPDATE items SET name = ?", (text,)),
            (
                """UPDATE variants SET name = ?, color = ?, size = ?, value = ?,
                       conflicting_values = ?""",
                (text, text, text, text, conflicting_values),
            ),
            ("UPDATE change_log SET availability = ?, old_availability = ?", (text, text)),
            (
                """UPDATE deliveries SET action = ?, reason = ?, content_key = ?, body = ?,
                                         event_id = delivery_id || ?""",
                (text, text, f"{VARIANT_ID}={text}", text.encode(), text),
            ),
        ):
            connection.execute(sql, values)


def status_of(text: str) -> dict[str, Any]:
    return {
        "health": "degraded",
        "reasons": [text, text],
        "webhooks": {
            "state": text,
            "last_delivery_at": text,
            "missed_24h": 0,
            "invalid_signatures_24h": 0,
        },
        "mirror": {
            "path": text,
            "items": 1,
            "variants": 1,
            "sellable": 0,
            "removed": 0,
            "oldest_confirmed_at": text,
            "unknown_values": {text: 1},
            "more_unknown_values": 3,
        },
        "sweep": {
            "running": False,
            "checked": 0,
            "total": None,
            "eta_seconds": None,
            "last_finished_at": text,
            "last_result": text,
            "next_at": text,
        },
        "budget": {"calls_per_minute": 45, "used_last_minute": 0, "throttled_24h": 0},
        "refresh_queue": 0,
        "quarantined": 0,
        "version": text,
        "started_at": text,
    }


def summary_of(text: str) -> SweepSummary:
    return SweepSummary(
        sweep_id=1,
        is_catalogue=True,
        began_at=NOW,
        result="partial",
        items=1,
        variants=1,
        changed=0,
        added=0,
        removed=0,
        missed=0,
        calls=1,
        throttled=0,
        seconds=1.0,
        failed_items=[77],
        error=text,
    )


def change_of(text: str) -> Change:
    return Change(
        variant_id=VARIANT_ID,
        item_id=77,
        old_availability=text,
        availability=text,
        old_sellable=False,
        sellable=False,
        cause="read",
        rule="settled",
        missed=False,
        occurred_at=NOW,
        recorded_at=NOW,
    )


@contextlib.contextmanager
def neighbours(text: str) -> Iterator[None]:
    """Run a daemon that answers with this text, and a Dreamship whose errors contain it."""

    async def page(*_: object) -> None:
        raise SourceUnreachable(text, hint=text)

    done = Differences(summary_of(text), [change_of(text)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "request_status", lambda _: convert(status_of(text), StatusDocument))
        patch.setattr(client, "request_reconcile", lambda *_: iter([done]))
        patch.setattr(
            client,
            "request_replay",
            lambda *_: [ReplayResult(1, cast("Any", text), cast("Any", text))],
        )
        patch.setattr(DreamshipClient, "page", page)
        yield


def printed(site: Site, *arguments: str) -> str:
    """Return the output of a command on a terminal, then its errors, without progress."""
    terminal, faults = Terminal(), io.StringIO()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(faults):
        assert run([*arguments, "--config", str(site.config)]) in {0, 1, 4}
    return terminal.getvalue() + faults.getvalue()


ABOUT_THE_MIRROR = (
    ("availability", str(VARIANT_ID)),
    ("explain", str(VARIANT_ID)),
    ("changes", "--limit", "5"),
    ("deliveries",),
    ("deliveries", "--body"),
)
ASKING_OTHERS = (("status",), ("reconcile-now",), ("replay", "1"), ("doctor",))


@given(TEXT)
@settings(max_examples=60)
def test_text_of_the_mirror_is_printed_as_text(mirror: Site, text: str) -> None:
    """A terminal obeys none of it, and none of it looks like our own line."""
    fill(mirror, text)
    for command in ABOUT_THE_MIRROR:
        shown = printed(mirror, *command)
        assert not hidden(shown), (command, text)
        assert not any(line.startswith("   9  forged") for line in shown.split("\n"))
        exact = printed(mirror, *command, "--json")
        assert not hidden(exact), (command, text)
        assert text in texts([json.decode(one) for one in documents(exact)])


@given(TEXT)
@settings(max_examples=30)
def test_answers_are_printed_as_text(mirror: Site, text: str) -> None:
    """Reasons and results of a daemon, and faults of Dreamship."""
    with neighbours(text):
        for command in ASKING_OTHERS:
            assert not hidden(printed(mirror, *command)), (command, text)
            assert not hidden(printed(mirror, *command, "--json")), (command, text)


@given(TEXT, st.sampled_from([SyncdError, ValueError, OSError, RuntimeError, ImportError]))
@settings(max_examples=60)
def test_a_fault_is_printed_as_text(mirror: Site, text: str, kind: type[Exception]) -> None:
    """An expected one, an unexpected one, and its traceback."""

    def fail(_: object) -> None:
        raise kind(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "request_status", fail)
        assert not hidden(printed(mirror, "status"))
        patch.setenv("SYNCD_DEBUG", "1")
        assert not hidden(printed(mirror, "status"))


@given(TEXT)
def test_wrong_usage_is_printed_as_text(text: str) -> None:
    """The message repeats the arguments."""
    terminal = Terminal()
    with contextlib.redirect_stderr(terminal), contextlib.redirect_stdout(terminal):
        for arguments in ([text], ["availability", text], ["status", f"--{text}"]):
            run([*arguments, "--help"] if not text else arguments)
    assert not hidden(terminal.getvalue()), text


@given(TEXT)
def test_a_printed_configuration_stays_valid_toml(mirror: Site, text: str) -> None:
    """With any text in its values."""
    values = ["in_stock", f"x{text.replace(chr(0), '')}"]
    mirror.configure(availability={"sellable": values})
    # JSON leaves this one as it is, and TOML does not take it so.
    mirror.config.write_text(mirror.config.read_text().replace("\x7f", "\\u007f"))
    try:
        shown = printed(mirror, "check-config")
        assert not hidden(shown)
        assert tomllib.loads(shown)["availability"]["sellable"] == values
    finally:
        mirror.configure(availability={"sellable": ["in_stock"]})


def test_markup_is_printed_literally(mirror: Site) -> None:
    """Rich would turn it into colours or links."""
    text = "[red]Mug[/red] [link=http://evil]x[/link]"
    fill(mirror, text)
    for command in ABOUT_THE_MIRROR:
        shown = printed(mirror, *command)
        assert shown.count(text) == shown.count("Mug") > 0
    with neighbours(text):
        for command in ASKING_OTHERS:
            shown = printed(mirror, *command)
            assert shown.count(text) == shown.count("Mug") > 0


def test_some_failed_items_are_named(mirror: Site) -> None:
    """With the number of the others; JSON has every id."""
    failed = list(range(101, 131))
    with pytest.MonkeyPatch.context() as patch:
        summary = replace(summary_of(""), failed_items=failed)
        patch.setattr(client, "request_reconcile", lambda *_: iter([summary]))
        shown = printed(mirror, "reconcile-now")
        assert f"  not read: {', '.join(map(str, failed[:20]))} and 10 more\n" in shown
        assert json.decode(printed(mirror, "reconcile-now", "--json"))["failed_items"] == failed


def documents(shown: str) -> list[str]:
    """Return the documents of a command: one whole, or one a line."""
    return [shown] if shown.startswith("{\n") else shown.splitlines()


def texts(document: Any) -> set[str]:
    """Return every text in a document."""
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        return set().union(*map(texts, document))
    return {document} if isinstance(document, str) else set()


def test_a_body_of_any_bytes_is_printed(mirror: Site) -> None:
    """A body that is not UTF-8 hides no other; its bytes are escaped."""
    fill(mirror, "Mug")
    with closing(sqlite3.connect(mirror.mirror)) as connection, connection:
        connection.execute(
            "UPDATE deliveries SET body = ? WHERE event_id LIKE '1%'", (b"a\xff\x9b",)
        )
    shown = printed(mirror, "deliveries", "--body")
    assert "\n    a\\xff\\x9b\n" in shown
    assert "\n    Mug\n" in shown
    exact = printed(mirror, "deliveries", "--body", "--json")
    assert [json.decode(line)["body"] for line in exact.splitlines()] == ["Mug", "a\\xff\\x9b"]


def test_a_file_of_any_name_is_printed(mirror: Site) -> None:
    """Also as JSON, if the name is not UTF-8."""
    odd = mirror.folder / os.fsdecode(b"\xff\x9b.toml")
    odd.write_bytes(mirror.config.read_bytes())
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal):
        assert run(["check-config", "--json", "--config", str(odd)]) == 0
        assert run(["check-config", "--config", str(odd)]) == 0
    assert not hidden(terminal.getvalue())
    assert terminal.getvalue().count("\\udcff\\udc9b.toml") == 1
    assert json.decode(terminal.getvalue().partition("\n#")[0])["file"] == visible(str(odd))


# The log.


@given(TEXT)
@example("\x7f")
def test_log_lines_are_plain_text(text: str) -> None:
    """In every part of an event that can have foreign text."""
    styles: tuple[Literal["console", "json"], ...] = ("console", "json")
    for style in styles:
        stream = io.StringIO()
        logs.configure("info", style, stream=stream)
        try:
            structlog.get_logger("test").warning(text, error=text, values={text: [text]})
        finally:
            structlog.reset_defaults()
        assert not hidden(stream.getvalue())
        assert stream.getvalue().count("\n") == 1


# A real terminal.


class Pty:
    """A process on a new terminal, and its output there."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            command, env=environ, stdin=follower, stdout=follower, stderr=follower
        )
        os.close(follower)
        self.shown = b""

    def read(self, until: bytes | None = None) -> str:
        """Read to the end, or until these bytes were shown; line ends are as they were written."""
        while until is None or until not in self.shown:
            assert select.select([self._leader], [], [], 20)[0], self.shown
            try:
                self.shown += os.read(self._leader, 65536)
            except OSError:  # the other side is closed
                break
        return self.shown.decode().replace("\r\n", "\n")

    def close(self) -> None:
        """End it."""
        os.close(self._leader)
        self.process.kill()
        self.process.wait()


def test_no_output_acts_on_a_terminal(site: Site) -> None:
    """The log, each command, and the page, with a hostile source."""
    evil = "".join(NASTY)
    site.catalogue.names.update(dict.fromkeys(site.catalogue.names, evil))
    for variant_id in site.catalogue.variants:
        site.catalogue.set_availability(variant_id, evil)
    environ = site.environ | {"NO_COLOR": "1", "TERM": "xterm-256color"}
    # Without the line of progress, which erases itself.
    daemon = Pty(site.command("serve"), environ | {"TERM": "dumb"})
    try:
        daemon.read(until=b"not sold: ")
        message = daemon.read(until=b"values=")
        found = re.search(r"listening +address=(\S+) +listener=admin", message)
        assert found, message
        requested = str(min(site.catalogue.variants))
        for command in (
            ("availability", requested),
            ("explain", requested),
            ("changes",),
            ("deliveries", "--body"),
            ("status",),
            ("doctor",),
            ("reconcile-now",),
            ("reconcile-now", "--json"),
            ("status", "--json"),
            ("availability", requested, "--json"),
        ):
            with closing(Pty(site.command(*command), environ)) as terminal:
                shown = without_progress(terminal.read())
            assert not hidden(shown), (command, shown)
            assert shown
        for path in ("/", f"/?q={requested}", "/status.json"):
            answer = httpx.get(found[1] + path, trust_env=False)
            assert answer.status_code == 200
            assert not hidden(answer.text)
        daemon.process.send_signal(signal.SIGTERM)
        assert not hidden(daemon.read())
        assert daemon.process.wait(20) == 0
    finally:
        daemon.close()


def without_progress(shown: str) -> str:
    """Return the output without our own progress bar, which only moves the cursor."""
    return re.sub(r"\x1b\[(?:\?25[lh]|1A|2K)|\r", "", shown)
