"""Commands: results on stdout, faults in two lines, exit codes, no traceback."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import json

from syncd import __version__
from syncd.cli import COMMANDS, run
from syncd.demo.fake_dreamship import UPDATED, Event
from syncd.store import Database

if TYPE_CHECKING:
    from conftest import Daemon, Site

# SQLite has no number of this size.
HUGE = str(10**20)
STATUS_KEYS: dict[str, list[str] | None] = {
    "health": None,
    "reasons": None,
    "problems": None,
    "webhooks": ["state", "last_delivery_at", "missed_24h", "invalid_signatures_24h"],
    "mirror": [
        "path",
        "items",
        "variants",
        "sellable",
        "removed",
        "oldest_confirmed_at",
        "unknown_values",
        "more_unknown_values",
        "daemon_seen_at",
    ],
    "sweep": [
        "running",
        "checked",
        "total",
        "eta_seconds",
        "last_finished_at",
        "last_result",
        "next_at",
    ],
    "budget": ["calls_per_minute", "used_last_minute", "throttled_24h"],
    "waiting_for_first_delivery": None,
    "reading": [
        "rate_per_minute",
        "why",
        "confirmed_10m",
        "confirmed_30m",
        "confirmed_60m",
        "evidence_at",
        "hints",
    ],
    "listings": None,
    "publish": None,
    "push": None,
    "refresh_queue": None,
    "quarantined": None,
    "max_connections": None,
    "version": None,
    "started_at": None,
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ESCAPE = "\x1b"


def output(done: subprocess.CompletedProcess[str], code: int = 0) -> Any:
    """Return the one document a command printed."""
    assert done.returncode == code, done.stderr
    return json.decode(done.stdout)


def error_of(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the lines of an error: some say what is wrong, one says what to try."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("Error: ") for line in lines[:-1])
    assert lines[-1].startswith("Try: ")
    return done.stderr


def on_terminal(command: list[str], environ: dict[str, str]) -> str:
    """Return the output of a command on a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command, env=environ, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    shown = b""
    while True:
        select.select([leader], [], [], 20)
        try:
            received = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        shown += received
    os.close(leader)
    process.wait()
    return shown.decode()


# status


def test_status_has_the_keys_of_the_contract(shared: Daemon) -> None:
    """Exactly these keys, with times of 27 characters or null."""
    done = shared.site.syncd("status", "--json")
    document = output(done, done.returncode)
    assert list(document) == list(STATUS_KEYS)
    for name, keys in STATUS_KEYS.items():
        if keys is not None:
            assert list(document[name]) == keys
    assert document["version"] == __version__
    assert document["mirror"]["path"] == str(shared.site.mirror)
    assert document["mirror"]["variants"] >= len(shared.site.catalogue.current_values())
    moments = [
        document["webhooks"]["last_delivery_at"],
        document["mirror"]["oldest_confirmed_at"],
        document["sweep"]["last_finished_at"],
        document["sweep"]["next_at"],
        document["started_at"],
    ]
    assert all(moment is None or MOMENT.fullmatch(moment) for moment in moments)


def test_status_counts_unlisted_values(shared: Daemon) -> None:
    """An unlisted value is not sellable, and the status says how many variants have it."""
    site = shared.site
    variant_id = min(site.catalogue.variants)
    shared.deliver(site.change(variant_id, "made to order"))
    document = json.decode(site.syncd("status", "--json").stdout)
    assert document["mirror"]["unknown_values"]["made to order"] == 1
    assert "in_stock" not in document["mirror"]["unknown_values"]
    assert MOMENT.fullmatch(document["webhooks"]["last_delivery_at"])
    assert "'made to order' x 1" in site.syncd("status").stdout


def test_the_exit_code_of_status_is_the_health(site: Site) -> None:
    """0 when ok, 1 when degraded, 3 when no daemon answers."""
    assert "syncd serve" in error_of(site.syncd("status"), 3)
    daemon = site.serve()
    new = site.syncd("status")
    lines = new.stdout.splitlines()
    assert (new.returncode, lines[0]) == (1, "Waiting for the first delivery")
    assert re.fullmatch(
        r"Selling \d+ of 20 variants\. Confirmed .* Deliveries: none yet\.", lines[1]
    )
    assert lines[2] == "  - No delivery has arrived yet."
    assert "health            degraded" in lines
    daemon.deliver(site.change(min(site.catalogue.variants), "low_stock"))
    good = site.syncd("status")
    assert (good.returncode, good.stdout.splitlines()[0]) == (0, "All well")
    assert "Confirmed less than a minute ago. Deliveries: arriving." in good.stdout
    assert "health            ok" in good.stdout.splitlines()
    assert daemon.post(b"no JSON").status_code == 200
    bad = site.syncd("status")
    assert (bad.returncode, bad.stdout.splitlines()[0]) == (1, "Something to do")
    assert "not understood" in bad.stdout
    daemon.stop()
    error_of(site.syncd("status"), 3)
    error_of(site.syncd("status", "--json"), 3)


# availability


def test_availability_prints_the_row_of_the_view(shared: Daemon) -> None:
    """Lines for people, JSON for scripts, in the requested order."""
    site = shared.site
    first, second = sorted(site.catalogue.variants)[1:3]
    document = output(site.syncd("availability", str(second), str(first), "--json"))
    assert document == {"variants": [site.variant(second), site.variant(first)], "unknown": []}
    shown = site.syncd("availability", str(first))
    assert shown.returncode == 0
    row = dict(line.split(None, 1) for line in shown.stdout.splitlines())
    assert row["variant_id"] == str(first)
    assert row["availability"] == site.catalogue.variants[first].availability
    assert row.keys() == site.variant(first).keys()


def test_availability_of_an_unknown_variant_is_exit_1(shared: Daemon) -> None:
    """The known variants are printed all the same."""
    known = sorted(shared.site.catalogue.variants)[1]
    done = shared.site.syncd("availability", "1", str(known), "--json")
    document = output(done, 1)
    assert document["unknown"] == [1]
    assert [row["variant_id"] for row in document["variants"]] == [known]
    assert "variant 1 is not in the mirror; check the id" in done.stderr


@pytest.mark.parametrize("argument", ["0", "x", str(2**63), ""])
def test_an_invalid_variant_id_is_exit_2(argument: str) -> None:
    """Before any file is opened."""
    assert run(["availability", *([argument] if argument else [])]) == 2


# changes


def test_changes_are_printed_oldest_first(shared: Daemon) -> None:
    """From a `seq` on, up to a limit, each as the row of the view."""
    site = shared.site
    rows = site.rows("SELECT * FROM changes ORDER BY seq")
    done = site.syncd("changes", "--since", str(rows[9]["seq"]), "--limit", "5", "--json")
    assert done.returncode == 0
    assert [json.decode(line) for line in done.stdout.splitlines()] == rows[10:15]
    everything = site.syncd("changes", "--since", "0", "--json").stdout.splitlines()
    assert [json.decode(line) for line in everything][: len(rows)] == rows
    last = site.syncd("changes").stdout.splitlines()
    assert len(last) == 20
    assert f"variant {rows[-1]['variant_id']}" in last[-1]
    assert site.syncd("changes", "--since", "999999").stdout == ""


def test_an_empty_result_is_reported_on_stderr(site: Site) -> None:
    """A script that counts the lines of stdout gets none."""
    store = Database(site.mirror)
    store.open()
    store.close()
    for arguments, says in (
        (("changes",), "Note: no change is stored\n"),
        (("deliveries",), "Note: no delivery is stored\n"),
        (("deliveries", "--outcome", "ignored"), "Note: no ignored delivery is stored\n"),
    ):
        for flags, output in (((), says), (("--json",), "")):
            done = site.syncd(*arguments, *flags)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", output)


def test_changes_follow_prints_each_new_change(shared: Daemon) -> None:
    """Shortly after the answer; Ctrl-C ends it with 130."""
    site = shared.site
    since = site.rows("SELECT max(seq) AS seq FROM changes")[0]["seq"]
    with subprocess.Popen(
        site.command("changes", "--follow", "--since", str(since), "--json"),
        env=site.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as following:
        try:
            assert following.stdout is not None
            assert following.stderr is not None
            variant_id = max(site.catalogue.variants)
            for value in ("made to order", "in_stock"):
                event = site.change(variant_id, value)
                # The same second as the last one; the timestamps of both differ.
                shared.deliver(Event(UPDATED, "item_variant", variant_id, event.at))
                ready, _, _ = select.select([following.stdout], [], [], 5)
                assert ready, "nothing within 5 s"
                change = json.decode(following.stdout.readline())
                assert (change["variant_id"], change["availability"]) == (variant_id, value)
            following.send_signal(signal.SIGINT)
            assert following.wait(10) == 130
            assert b"Traceback" not in following.stderr.read()
        finally:
            following.kill()


def test_a_pipe_closed_early_is_exit_0(shared: Daemon) -> None:
    """`syncd changes --follow | head -1` ends without a message at its next line."""
    site = shared.site
    with subprocess.Popen(
        site.command("changes", "--follow"),
        env=site.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as following:
        try:
            assert following.stdout is not None
            assert following.stderr is not None
            assert following.stdout.readline()
            following.stdout.close()
            shared.deliver(site.change(sorted(site.catalogue.variants)[5], "made to order"))
            assert following.wait(10) == 0
            assert following.stderr.read() == b""
        finally:
            following.kill()


# check-config


def test_check_config_prints_the_configuration(idle: Site) -> None:
    """With the secret masked, as TOML or as JSON."""
    shown = idle.syncd("check-config")
    assert shown.returncode == 0
    assert 'settle = "1s"' in shown.stdout
    assert "# api keys: 1, from the configuration" in shown.stdout
    document = output(idle.syncd("check-config", "--json"))
    assert document["dreamship"]["api_keys"] == ["********"]
    assert document["reconcile"]["every"] == "6h"
    assert idle.key not in shown.stdout + shown.stderr + str(document)


def test_check_config_names_every_fault_at_once(idle: Site) -> None:
    """Each with its key, in one round; exit 2."""
    idle.configure(
        webhook={"listen": "nowhere", "pth": "/x"},
        reconcile={"settle": "soon"},
        dreamship={"calls_per_minute": 0},
        colour={"red": 1},
    )
    message = error_of(idle.syncd("check-config"), 2)
    for key in ("webhook.listen", "webhook.pth", "reconcile.settle", "calls_per_minute", "colour"):
        assert key in message
    assert "webhook.path?" in message
    assert idle.key not in message


def test_an_invalid_toml_file_is_two_lines(idle: Site) -> None:
    """Exit 2 for every command, with the number of the line."""
    idle.config.write_text('[dreamship]\napi_keys = ["ds_secret_1"]\ncolour red\n')
    for command in ("check-config", "serve", "changes"):
        message = error_of(idle.syncd(command), 2)
        assert "line 3" in message
        assert "ds_secret" not in message


def test_a_missing_configuration_is_named(idle: Site) -> None:
    """By the given path, or by all places that were searched."""
    assert "nowhere.toml" in error_of(
        idle.syncd("status", "--config", "nowhere.toml", config=False), 2
    )
    assert "config.toml" in error_of(
        idle.syncd(
            "status",
            config=False,
            environ={"SYNCD_CONFIG": str(idle.folder / "other" / "config.toml")},
        ),
        2,
    )
    # The one of the working folder is found by itself.
    assert idle.syncd("check-config", config=False).returncode == 0


# A missing mirror, or a file that is no mirror.


@pytest.mark.parametrize("command", [("availability", "7"), ("changes",), ("changes", "--follow")])
def test_a_missing_mirror_is_two_lines(idle: Site, command: tuple[str, ...]) -> None:
    """Exit 1 and a hint."""
    assert str(idle.mirror) in error_of(idle.syncd(*command), 1)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no database at all" * 100, id="no database"),
        pytest.param(b"SQLite format 3\x00" + b"\xff" * 5000, id="damaged"),
    ],
)
def test_a_file_that_is_no_mirror_is_two_lines(idle: Site, content: bytes) -> None:
    """For reading commands and the daemon; the file is not changed."""
    idle.mirror.parent.mkdir()
    idle.mirror.write_bytes(content)
    assert str(idle.mirror) in error_of(idle.syncd("availability", "7"), 1)
    error_of(idle.syncd("changes"), 1)
    if content:
        for command in ("serve", "reconcile-now"):
            assert str(idle.mirror) in error_of(idle.syncd(command), 1)
        assert idle.mirror.read_bytes() == content


def test_a_database_of_another_program_is_refused(idle: Site) -> None:
    """mirror.path names it by mistake; the file is not changed."""
    import sqlite3  # noqa: PLC0415 - only here is a file written by hand

    idle.mirror.parent.mkdir()
    with closing(sqlite3.connect(idle.mirror)) as connection:
        connection.execute("CREATE TABLE orders (id)")
    before = idle.mirror.read_bytes()
    assert "no mirror" in error_of(idle.syncd("serve"), 1)
    assert "no mirror" in error_of(idle.syncd("availability", "7"), 1)
    assert idle.mirror.read_bytes() == before


# The program itself.


def test_the_version_is_that_of_the_package() -> None:
    """With the script and with `python -m syncd`."""
    done = subprocess.run(
        [sys.executable, "-m", "syncd", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"syncd, version {__version__}\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A user of --help finds a line to copy."""
    assert run([command, "--help"] if command else ["--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"Examples?:\n\s+syncd {command}", shown)
    assert "Usage: syncd" in shown


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["status", "--nonsense"], ["changes", "--limit", "0"]]
)
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    """The message on stderr says what is wrong."""
    assert run(arguments) == 2


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (["changes", "--limit"], "--limit takes a value, and has none", "changes"),
        (["changes", "--since", HUGE], f"--since: '{HUGE}' is no whole number", "changes"),
        (["changes", "--limit", HUGE], f"--limit: '{HUGE}' is no whole number", "changes"),
        (["deliveries", "--limit", HUGE], f"--limit: '{HUGE}' is no whole number", "deliveries"),
        (["replay", "x"], "DELIVERY_ID...: 'x' is no whole number", "replay"),
        (["status", "--config", ""], "--config: the path is empty", "status"),
    ],
)
def test_an_invalid_argument_is_named_with_the_help_of_its_command(
    arguments: list[str], message: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that SQLite cannot take, and an unset variable of a script, are invalid too."""
    assert run(arguments) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"Error: {message}")
    assert hint == f"Try: `syncd {command} --help` explains it, with an example"


@pytest.mark.parametrize("command", [("status",), ("changes",)])
def test_results_are_coloured_on_a_terminal_only(shared: Daemon, command: tuple[str, ...]) -> None:
    """Unless NO_COLOR is set."""
    site = shared.site
    plain = site.syncd(*command)
    assert ESCAPE not in plain.stdout + plain.stderr
    terminal = site.environ | {"TERM": "xterm-256color"}
    assert ESCAPE in on_terminal(site.command(*command), terminal)
    assert ESCAPE not in on_terminal(site.command(*command), terminal | {"NO_COLOR": "1"})


def test_faults_are_coloured_on_a_terminal_only(idle: Site) -> None:
    """The word Error is red, or plain text with NO_COLOR."""
    idle.config.unlink()
    terminal = idle.environ | {"TERM": "xterm-256color"}
    assert ESCAPE in on_terminal(idle.command("status"), terminal)
    assert ESCAPE not in on_terminal(idle.command("status"), terminal | {"NO_COLOR": "1"})
