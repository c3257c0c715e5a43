"""Completion in real shells, set up with the documented lines."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import blocks

from syncd.cli import cli

SECTION = "Completing in your shell"
# The typed text, and the line after TAB.
TYPED = [
    pytest.param("syncd reco", "syncd reconcile-now ", id="command"),
    pytest.param("syncd reconcile-now --dr", "syncd reconcile-now --dry-run ", id="option"),
    pytest.param("syncd deliveries --outcome q", "--outcome quarantined ", id="value"),
]


def line(shell: str) -> str:
    """Return the one documented line for a shell."""
    (found,) = blocks(SECTION, shell)
    assert found.count("\n") == 1
    return found.removesuffix("\n")


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed (Debian's package of that name)")
    return found


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Give an environment that has the program among its commands."""
    there = Path(sys.executable).with_name("syncd")
    linked = tmp_path / "bin" / "syncd"
    linked.parent.mkdir()
    linked.symlink_to(there)
    home = {"HOME": str(tmp_path), "LANG": "C.UTF-8", "TERM": "dumb"}
    return home | {"PATH": f"{linked.parent}:{os.environ['PATH']}"}


class Terminal:
    """A shell on a terminal: a test types text and reads the screen."""

    def __init__(self, screen: int) -> None:
        self._screen = screen
        self.observed = ""

    def type(self, keys: str) -> None:
        """Type a text; the earlier content of the screen does not count."""
        self.observed = ""
        os.write(self._screen, keys.encode())

    def until(self, text: str, within_s: float = 10.0) -> None:
        """Return as soon as the screen shows a text; fail if it does not appear."""
        deadline_s = time.monotonic() + within_s
        while text not in self.observed:
            left_s = deadline_s - time.monotonic()
            ready, _, _ = select.select([self._screen], [], [], max(left_s, 0))
            assert ready, f"no {text!r} in {self.observed!r}"
            self.observed += os.read(self._screen, 4096).decode(errors="replace")


@contextlib.contextmanager
def at_terminal(*command: str, environ: dict[str, str]) -> Iterator[Terminal]:
    """Run a shell on a new terminal; end both afterwards."""
    screen, keyboard = pty.openpty()
    termios.tcsetwinsize(screen, (24, 500))
    process = subprocess.Popen(
        command,
        cwd=environ["HOME"],
        env=environ,
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        start_new_session=True,
    )
    os.close(keyboard)
    try:
        yield Terminal(screen)
    finally:
        process.kill()
        process.wait()
        os.close(screen)


@pytest.mark.parametrize(("typed", "completed"), TYPED)
def test_bash_completes(environ: dict[str, str], typed: str, completed: str) -> None:
    """A command, an option and a value."""
    bash = needs("bash")
    with at_terminal(bash, "--norc", "--noprofile", "-i", environ=environ) as terminal:
        terminal.type(f"PS1='> '; {line('bash')}; echo to''ld\n")
        terminal.until("told")
        terminal.type(f"{typed}\t")
        terminal.until(completed)


def test_bash_completes_a_whole_path(environ: dict[str, str]) -> None:
    """Both in the set-up line and on the command line."""
    bash, there = needs("bash"), str(Path(sys.executable).with_name("syncd"))
    environ["PATH"] = "/usr/bin:/bin"
    named = line("bash").replace(" syncd)", f" {there})")
    with at_terminal(bash, "--norc", "--noprofile", "-i", environ=environ) as terminal:
        terminal.type(f"PS1='> '; {named}; echo to''ld\n")
        terminal.until("told")
        terminal.type(f"{there} expl\t")
        terminal.until("explain ")


@pytest.mark.parametrize(("typed", "completed"), TYPED)
def test_zsh_completes(environ: dict[str, str], typed: str, completed: str) -> None:
    """A command, an option and a value."""
    zsh = needs("zsh")
    with at_terminal(zsh, "-f", "-i", environ=environ) as terminal:
        terminal.type(f"autoload -U compinit && compinit -u; {line('zsh')}; echo to''ld\n")
        terminal.until("told\r\n")
        terminal.type(f"{typed}\t")
        terminal.until(completed)


@pytest.mark.parametrize(("typed", "completed"), TYPED)
def test_fish_completes(environ: dict[str, str], typed: str, completed: str) -> None:
    """By its own list of candidates."""
    script = f"{line('fish')}; complete --do-complete '{typed}'"
    done = subprocess.run(
        [needs("fish"), "--no-config", "--command", script],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    offered = [row.split("\t")[0] for row in done.stdout.splitlines()]
    assert offered == [completed.rsplit(maxsplit=1)[-1]]


def test_the_help_has_the_documented_line() -> None:
    """The line for bash, at the end of `syncd --help`."""
    assert line("bash") in (cli.epilog or "")
