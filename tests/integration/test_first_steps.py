"""First steps: another user, root, a mistyped command, and unexpected faults."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import Site
from msgspec import json

import syncd.cli
from syncd import cli
from syncd.cli import common
from syncd.cli.doctor import print_finding
from syncd.cli.doctor_checks import Finding
from syncd.cli.program import program, with_program
from syncd.control import messages
from syncd.errors import ConfigurationError
from syncd.http_server.sockets import _cannot_listen, bind_tcp, bind_unix


def lines_of(text: str) -> str:
    """Return the error: `Error:` lines, then one `Try:`, and nothing else."""
    *errors, last = text.splitlines()
    assert errors, text
    assert all(line.startswith("Error: ") for line in errors), text
    assert last.startswith("Try: "), text
    return text


# wrong usage


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ("stauts", "there is no command stauts", "`syncd status`"),
        ("recon", "there is no command recon", "`syncd reconcile-now`"),
        ("nosuchcommand", "there is no command nosuchcommand", "`syncd --help`"),
        ("--nope", "there is no option --nope", "`syncd --help`"),
        ("status --jsn", "there is no option --jsn", "`syncd status --json`"),
        ("status more", "extra argument (more)", "`syncd status --help`"),
        ("changes --limit 0", "--limit: '0' is no whole number from 1", "`syncd changes --help`"),
        ("changes --since x", "--since: 'x' is no whole number from 0", "`syncd changes --help`"),
        ("changes --since", "--since takes a value", "--help`"),
        ("demo --seconds 1", "'1' is no whole number from 5 to 3600, or 0", "`syncd demo --help`"),
        ("availability", "VARIANT_ID... is missing", "`syncd availability --help`"),
        ("availability x", "VARIANT_ID...: 'x' is no whole number", "`syncd availability --help`"),
        (f"explain {2**63}", "is no whole number from 1 to ", "`syncd explain --help`"),
        ("deliveries --outcome x", "--outcome: 'x' is not one of", "`syncd deliveries --help`"),
        ("demo flop", "there is no command demo flop", "`syncd demo flip`"),
        ("demo --port 80", "'80' is no whole number from 1024", "`syncd demo --help`"),
        ("demo flip 1", "VALUE is missing", "`syncd demo flip --help`"),
        ("backup", "PATH is missing", "`syncd backup --help`"),
        ("replay", "no delivery is named", "--quarantined"),
    ],
)
def test_wrong_usage_is_an_error_and_a_hint(
    capsys: pytest.CaptureFixture[str], arguments: str, error: str, hint: str
) -> None:
    """First the fault, then the remedy; exit code 2."""
    assert cli.run(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = lines_of(err).splitlines()
    assert error in first
    assert hint in second
    assert "integer" not in err


@pytest.mark.parametrize("name", [*cli.COMMANDS, "demo flip"])
def test_each_help_has_an_example(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A command line that begins with the command; no line is wider than a terminal."""
    assert cli.run([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    _, _, examples = shown.partition("Example")
    assert f"  syncd {name}" in examples
    assert max(map(len, shown.splitlines())) <= 100
    assert "<=x" not in shown


@pytest.mark.parametrize(
    ("called", "found", "name"),
    [
        ("/usr/bin/syncd", "/usr/bin/syncd", "syncd"),
        (".venv/bin/syncd", None, ".venv/bin/syncd"),
        (".venv/bin/syncd", "/usr/bin/syncd", ".venv/bin/syncd"),
        ("/x/.cache/uv/archive-v0/a/bin/syncd", "same", "/x/.cache/uv/archive-v0/a/bin/syncd"),
        ("/home/me/my tools/syncd", None, "~/'my tools/syncd'"),
        ("/tests/pytest", None, "syncd"),
    ],
)
def test_a_hint_has_the_command_that_the_shell_finds(
    monkeypatch: pytest.MonkeyPatch, called: str, found: str | None, name: str
) -> None:
    """`.venv/bin/syncd` and programs that uvx or pipx runs are not in PATH."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("sys.argv", [called])
    monkeypatch.setattr("shutil.which", lambda _: called if found == "same" else found)
    assert program() == name
    assert with_program("run `syncd setup`, or see it") == f"run `{name} setup`, or see it"


def test_a_check_of_doctor_names_the_program_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person copies the commands in it."""
    monkeypatch.setattr("sys.argv", ["folder/bin/syncd"])
    print_finding(Finding("a check", "warn", "see `syncd status`", "run `syncd serve`"))
    shown = capsys.readouterr().out
    assert "see `folder/bin/syncd status`" in shown
    assert "run `folder/bin/syncd serve`" in shown


def test_syncd_without_arguments_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """A user who types only its name wants to know the commands."""
    assert cli.run([]) == 2
    assert "check-config" in capsys.readouterr().err


# check-config


def test_check_config_names_its_file(idle: Site) -> None:
    """However it was found; JSON has it beside the sections."""
    assert f"# read from {idle.config}\n" in idle.syncd("check-config", config=False).stdout
    document = json.decode(idle.syncd("check-config", "--json").stdout)
    assert document.pop("file") == str(idle.config)
    assert set(document) >= {"dreamship", "webhook", "mirror", "log"}


@pytest.mark.parametrize("failure", ["value", "no TOML", "missing", "no key", "dirt"])
def test_check_config_json_has_every_fault(idle: Site, failure: str) -> None:
    """In one document; the same faults for people on stderr."""
    if failure == "value":
        idle.configure(reconcile={"settle": "soon"}, log={"level": "loud"})
    elif failure == "no TOML":
        idle.config.write_text("[dreamship\n")
    elif failure == "missing":
        idle.config.unlink()
    else:
        idle.configure(dreamship={"api_keys": ['"k"'] if failure == "dirt" else []})
    done = idle.syncd("check-config", "--json")
    assert done.returncode == 2
    document = json.decode(done.stdout)
    assert set(document) == {"faults", "hint", "file"}
    assert document["file"] == str(idle.config)
    assert len(document["faults"]) == (2 if failure == "value" else 1)
    output = [f"Error: {one}" for one in document["faults"]] + [f"Try: {document['hint']}"]
    assert done.stderr.splitlines() == output


def test_check_config_json_has_no_file_if_none_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`file` is null then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNCD_CONFIG", raising=False)
    monkeypatch.setattr("syncd.config.loading.SYSTEM_PATH", tmp_path / "nowhere.toml")
    assert cli.run(["check-config", "--json"]) == 2
    assert json.decode(capsys.readouterr().out)["file"] is None


# listening


def test_an_address_in_use_has_a_hint_to_find_its_owner() -> None:
    """The hint is the command that names the process."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match="in use") as caught:
            bind_tcp("127.0.0.1", port, key="webhook.listen")
    assert "stop the program that uses it" in caught.value.hint
    assert f"sport = :{port}" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "hint"),
    [("192.0.2.1", "ip address"), ("nowhere.invalid", "an address of this host")]
    + [(host, "an address of this host") for host in ("a..b", "x" * 70, "\u2603" * 80)],
)
def test_an_address_of_another_host_has_its_own_hint(host: str, hint: str) -> None:
    """It does not send the user to another program with that port."""
    with pytest.raises(ConfigurationError, match=r"^admin\.listen: cannot listen") as caught:
        bind_tcp(host, 0, key="admin.listen")
    assert hint in caught.value.hint
    assert "stop the program" not in caught.value.hint


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EMFILE])
def test_each_reason_of_a_refused_port_has_its_own_hint(code: int) -> None:
    """A missing privilege among them."""
    failure = _cannot_listen("h:80", OSError(code, os.strerror(code)), "webhook.listen", 80)
    assert "stop the program" not in failure.hint
    if code in {errno.EACCES, errno.EPERM}:
        assert "1024" in failure.hint
        assert "CAP_NET_BIND_SERVICE" in failure.hint


def test_an_unusable_socket_path_has_a_hint(tmp_path: Path) -> None:
    """A file of another program, a live socket, a folder that is none."""
    (tmp_path / "file").write_text("precious")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "alive"))
        other.listen()
        for name, hint in (
            ("file", "move that file away"),
            ("alive", "stop the program that uses it"),
            ("file/below", "move that file away"),
        ):
            with pytest.raises(ConfigurationError, match=r"^control\.socket: ") as caught:
                bind_unix(tmp_path / name, key="control.socket")
            assert hint in caught.value.hint
    assert (tmp_path / "file").read_text() == "precious"


# unexpected errors


@pytest.mark.parametrize(
    ("failure", "error", "hint"),
    [
        (ZeroDivisionError("hush_12345"), "ZeroDivisionError: ********", "SYNCD_DEBUG=1"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left", "free some space"),
        (OSError(errno.EMFILE, "Too many open files", "/x"), "/x: Too many", "LimitNOFILE"),
        (RuntimeError("can't start new thread"), "another thread", "TasksMax"),
        (MemoryError(), "not enough memory", "MemoryMax"),
        (ImportError("libssl.so.3"), "libssl.so.3", "install it again"),
        (ValueError("two\nlines\x1b[31m"), "two lines\\x1b[31m", "report it"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_unexpected_exception_is_two_lines(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: Exception,
    error: str,
    hint: str,
) -> None:
    """Exit code 1, secrets masked; the traceback is shown on request."""

    @click.command()
    def command() -> None:
        raise failure

    monkeypatch.setattr("syncd.cli.status.command", command)
    monkeypatch.setattr(common, "secrets", {"hush_12345"})
    monkeypatch.delenv("SYNCD_DEBUG", raising=False)
    assert cli.run(["status"]) == 1
    first, second = lines_of(capsys.readouterr().err).splitlines()
    assert error in first
    assert hint in second
    monkeypatch.setenv("SYNCD_DEBUG", "1")
    assert cli.run(["status"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "hush" not in shown


def test_a_daemon_logs_an_unexpected_exception_once(
    idle: Site,
) -> None:
    """One log line with the traceback, and two lines for the user."""
    code = (
        "import sys, syncd.daemon.app, syncd.cli\n"
        "def fail(*_, **__): raise KeyError(sys.argv[2])\n"
        "syncd.daemon.app.run = fail\n"
        "sys.exit(syncd.cli.run(['serve', '-c', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(idle.config), idle.key],
        env=idle.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    logged, first, second = done.stderr.splitlines()
    assert json.decode(logged)["event"] == "an unexpected error"
    assert "Traceback" in json.decode(logged)["exception"]
    lines_of(f"{first}\n{second}")
    assert "Traceback" not in first + second
    assert idle.key not in done.stderr


def test_commands_that_need_no_keys_do_not_load_them() -> None:
    """A new command of this kind must be added to the list."""
    package = Path(syncd.cli.__file__).parent
    for name in ("status", "availability", "explain", "changes", "deliveries", "backup"):
        assert "with_keys=False" in (package / f"{name}.py").read_text()
    assert "keys" not in messages.ReconcileRequest.__struct_fields__
