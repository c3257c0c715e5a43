"""The demo that runs until it is stopped: its uses by a developer of a shop."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import json
from terminals import on_terminal

from syncd.demo import Ports, is_live, make_folders, open_in_browser
from syncd.demo.requests import find
from syncd.errors import ConfigurationError, DaemonAbsent, UsageError

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Site

ENDLESS = ("demo", "--seconds", "0")


def environ_of(site: Site) -> dict[str, str]:
    """Return an environment in which the demos of this test are alone."""
    kept = {name: value for name, value in site.environ.items() if name != "CI"}
    return kept | {"TMPDIR": str(site.folder)}


@contextlib.contextmanager
def running(site: Site, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a demo without an end; gives it with the document that it prints."""
    process = subprocess.Popen(
        site.command(*ENDLESS, "--json", *options, config=False),
        env=environ_of(site),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background would pass on an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        lines = [process.stdout.readline() for _ in range(8)]
        yield process, json.decode("".join(lines))
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
        process.stderr.close()


def daemons_in(folder: str) -> list[str]:
    """Return the processes that use this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_bytes().decode(errors="replace").split("\0")
            if "serve" in arguments and any(one.startswith(folder) for one in arguments):
                found.append(path.parent.name)
    return found


def free_ports() -> int:
    """Return a port after which two more are free.

    The system gives none of these to a connection or a listener without a number.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with contextlib.ExitStack() as bound, contextlib.suppress(OSError):
            for number in (port, port + 1, port + 2):
                bound.enter_context(socket.create_server(("127.0.0.1", number)))
            return port


def test_a_person_changes_a_variant_of_a_running_demo(idle: Site) -> None:
    """By a signed delivery, or by none: then a read finds it. SIGTERM ends everything."""
    port, environ = free_ports(), environ_of(idle)
    folder = idle.folder / "a shop's demo"

    def flip(*arguments: str) -> subprocess.CompletedProcess[str]:
        return idle.syncd("demo", "flip", *arguments, config=False, environ=environ)

    with running(idle, "--port", str(port), "--folder", str(folder)) as (process, place):
        urls = [place["webhook"], place["status_page"], place["dreamship"]]
        assert [f":{port + number}/" in url for number, url in enumerate(urls)] == [True] * 3
        assert place["database"] == str(folder / "availability.db")
        idle.mirror = Path(place["database"])
        idle.until(lambda: idle.rows("SELECT last_sweep_finished_at AS at FROM freshness")[0]["at"])
        variant = idle.rows("SELECT min(variant_id) AS id FROM availability")[0]["id"]

        done = flip(str(variant), "out_of_stock", "--json")
        assert done.returncode == 0, done.stderr
        assert json.decode(done.stdout)["outcome"] in {"applied", "verifying", "unchanged"}
        idle.until(lambda: idle.variant(variant)["availability"] == "out_of_stock")

        done = flip(str(variant), "back\x1b[2Jordered", "--lose")
        assert "The delivery was lost" in done.stdout
        assert "\x1b" not in done.stdout
        idle.until(lambda: idle.variant(variant)["availability"] == "back\x1b[2Jordered")
        assert idle.variant(variant)["source"] == "read"

        done = flip("1", "in_stock")
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "Error: the demo has no variant 1",
            f"Try: choose another, {variant} for instance; the mirror has all of them",
        ]
        assert flip("1", "x", "--port", "1").returncode == 3
        with pytest.raises(ConfigurationError, match=rf"^--port: cannot listen on .*:{port + 2}:"):
            Ports.starting_at(port + 2)
        assert daemons_in(str(folder))
        process.terminate()
        assert process.wait(10) == 130
    assert not daemons_in(str(folder))
    assert not list(idle.folder.glob("syncd-demo-*"))
    done = flip(str(variant), "in_stock")
    assert done.returncode == 3
    assert "syncd demo --seconds 0" in done.stderr


def test_a_terminal_shows_the_demo_and_keeps_its_last_picture(idle: Site) -> None:
    """Ctrl-C ends it quickly; then the picture and the name of the folder remain."""
    command = idle.command(*ENDLESS, config=False)
    with on_terminal(command, cwd=idle.folder, environ=environ_of(idle)) as terminal:
        terminal.read_until("\x1b[?1049h")
        terminal.read_until("http://127.0.0.1:")
        terminal.read_until("demo flip 48")
        began_s = time.monotonic()
        terminal.type("\x03")
        last = terminal.read_until("Interrupted.")
        assert terminal.end() == 130
        assert time.monotonic() - began_s < 5
    _, _, last = last.partition("\x1b[?1049l")
    assert "Status page" in last
    (folder,) = idle.folder.glob("syncd-demo-*")
    assert f"rm -r {folder}" in last
    assert "\x1b[3" not in terminal.shown  # NO_COLOR
    assert not daemons_in(str(folder))


def test_no_daemon_outlives_a_demo_that_is_killed(idle: Site) -> None:
    """It cannot end its daemon then, so the kernel does."""
    with running(idle) as (process, place):
        assert daemons_in(place["folder"])
        process.kill()
        process.wait()
        idle.until(lambda: not daemons_in(place["folder"]), within_s=20)


def test_a_terminal_that_cannot_erase_gets_lines(idle: Site) -> None:
    """TERM=dumb; the first of them names the status page."""
    command = ["env", "TERM=dumb", *idle.command(*ENDLESS, config=False)]
    with on_terminal(command, cwd=idle.folder, environ=environ_of(idle)) as terminal:
        terminal.read_until("Status page: http://127.0.0.1:")
        terminal.read_until("filling: ")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "\x1b" not in terminal.shown


@pytest.mark.parametrize(
    ("term", "ci", "is_shown"),
    [("xterm", "", True), ("xterm", "true", False), ("dumb", "", False), ("", "", False)],
)
def test_a_picture_needs_a_terminal_that_replaces_it(
    monkeypatch: pytest.MonkeyPatch, term: str, ci: str, *, is_shown: bool
) -> None:
    """Services that run tests have a terminal, and keep each picture as new lines."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("CI", ci)
    assert is_live() == is_shown


# --- folders, ports, browsers --------------------------------------------------------------------


def test_a_folder_with_other_files_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the mirror of an earlier demo is replaced; nothing is left in TMPDIR."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "availability.db").write_text("precious")
    with pytest.raises(UsageError, match="has other files"):
        make_folders(chosen)
    assert (chosen / "availability.db").read_text() == "precious"
    (chosen / "config.toml").write_text("# The configuration of `syncd demo`: …")
    folders = make_folders(chosen)
    assert folders.folder == chosen
    assert not list(chosen.iterdir())
    folders.sockets.rmdir()
    with pytest.raises(UsageError, match="cannot be used: Not a directory"):
        make_folders(Path(__file__) / "x")
    with pytest.raises(UsageError, match="is a file"):
        make_folders(Path(__file__))
    assert list(tmp_path.iterdir()) == [chosen]


def test_sockets_of_ended_demos_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demo that was killed leaves its socket."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "syncd-demo-x"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "demo.sock"))
    with pytest.raises(DaemonAbsent, match="no demo runs"):
        find()


def test_a_browser_is_only_opened_where_it_has_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser in the terminal would draw over the demo."""
    opened: list[list[str]] = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **_: opened.append(command))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert not open_in_browser("http://127.0.0.1:1/")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.get", lambda: None)
    assert open_in_browser("http://127.0.0.1:1/")
    assert [command[1:] for command in opened] == [["-m", "webbrowser", "http://127.0.0.1:1/"]]
    assert os.environ["DISPLAY"] == ":0"
