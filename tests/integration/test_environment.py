"""The environment is input: nothing in it ever shows a traceback, and what is wrong is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import Daemon, Site, unmeasured
from documents import ROOT

from syncd.config import environment
from syncd.errors import ConfigurationError

OUTSIDE = {"base_url": "https://127.0.0.1:9/v1"}
AS_USER = str(ROOT / "tests" / "as_user.py")
NOBODY = 65_534


def ended(
    site: Site,
    *arguments: str,
    environ: dict[str, str] | None = None,
    before: str = "",
    drop: tuple[str, ...] = (),
    config: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that the shell has done `before` to; never with a traceback."""
    drop += ("SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY", "no_proxy", "https_proxy", "HTTPS_PROXY")
    env = {name: value for name, value in site.unmeasured.items() if name not in drop}
    done = subprocess.run(
        _after(before, site.command(*arguments, config=config)),
        cwd=site.folder,
        env=env | (environ or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert "Traceback" not in out + err
    assert "Exception ignored" not in err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def _after(before: str, command: list[str], *, behind: str = "") -> list[str]:
    """Return a command line of which the shell does something first, or to its descriptors."""
    return ["/bin/sh", "-c", f'{before}\nexec "$@" {behind}', "sh", *command]


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """Return what was said of a fault: `Error:` lines, then one `Try:`."""
    assert done.returncode == code, done.stderr
    *errors, last = done.stderr.splitlines()
    assert errors, done.stderr
    assert all(line.startswith("Error: ") for line in errors), done.stderr
    assert last.startswith("Try: ")
    return done.stderr


# time zones


@pytest.mark.parametrize(
    "zone", ["UTC+1", "CET-1CEST,M3.5.0,M10.5.0/3", "Nowhere/Land", ":/nowhere", "/etc/passwd"]
)
def test_the_daemon_asks_for_no_time_zone(site: Site, zone: str) -> None:
    """What other programs understand, or do not, is nothing to it: all its times are UTC."""
    daemon = site.serve(environ={"TZ": zone})
    assert daemon.deliver(site.change(min(site.catalogue.variants), "out_of_stock")) == "applied"
    daemon.stop()


# the way to Dreamship


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks4://127.0.0.1:1"),
        ("HTTPS_PROXY", "proxy.local:http"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("SSL_CERT_DIR", "/nowhere"),
        ("SSLKEYLOGFILE", "/nowhere/keys"),
    ],
)
def test_a_way_that_cannot_be_gone_is_named_before_anything_is_made(
    idle: Site, variable: str, value: str
) -> None:
    """By check-config, by serve, by what asks Dreamship itself, and by doctor among its checks."""
    idle.configure(dreamship=OUTSIDE)
    for command in (("check-config",), ("serve",), ("reconcile-now",), ("replay", "--quarantined")):
        said = refused(ended(idle, *command, environ={variable: value}))
        assert f"Error: {variable}: " in said
        assert variable in said.splitlines()[-1]
    assert not idle.mirror.parent.exists()
    found = ended(idle, "doctor", environ={variable: value})
    assert (found.returncode, f"{variable}: " in found.stdout) == (1, True)
    # In the clear, on this host, none of it is in the way.
    idle.configure(dreamship={"base_url": "http://127.0.0.1:9/v1"})
    assert ended(idle, "check-config", environ={variable: value}).returncode == 0


def test_the_way_to_notify_url_is_looked_at_as_well(idle: Site) -> None:
    """Told once, though it is in both ways."""
    idle.configure(notify={"url": "https://hooks.example.com/T0/hush"})
    said = refused(ended(idle, "check-config", environ={"SSL_CERT_FILE": "/nowhere"}))
    assert said.count("SSL_CERT_FILE: ") == 1
    assert "notify.url" in said
    assert "hush" not in said
    assert ended(idle, "check-config", environ={"NO_PROXY": "fe80::/10,[::1]"}).returncode == 0


# folders


def test_a_current_folder_that_is_gone(idle: Site) -> None:
    """With a whole path all is well; without one it is said what was looked for."""
    leave = "mkdir gone && cd gone && rmdir ../gone"
    assert ended(idle, "check-config", before=leave).returncode == 0
    refused(ended(idle, "check-config", "-c", "config.toml", before=leave, config=False))
    refused(ended(idle, "check-config", before=leave, config=False))
    refused(ended(idle, "backup", "copy.db", before=leave), 1)


def _in_closed_folder(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as another user, in a folder of ours that it cannot look into."""
    folder.mkdir(mode=0o700)
    return subprocess.run(
        [sys.executable, AS_USER, str(NOBODY), str(NOBODY), *command],
        cwd=folder,
        env=unmeasured(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path) -> None:
    """The documented command, called from root's home."""
    done = _in_closed_folder(tmp_path / "home", "check-config")
    said = refused(done)
    assert f"{tmp_path}/home/config.toml cannot be looked at: Permission denied" in said
    assert "--config" in said


@pytest.mark.parametrize("drop", [("HOME",), ()])
def test_a_home_that_nobody_knows_is_a_fault_of_the_key(idle: Site, drop: tuple[str, ...]) -> None:
    """Of the user who has none, or of one who does not exist."""
    idle.configure(mirror={"path": "~no_such_user/a.db" if not drop else "~/a.db"})
    done = ended(idle, "check-config", environ={} if drop else {"HOME": ""}, drop=drop)
    if drop:
        assert done.returncode == 0  # the user database knows it
    else:
        assert "mirror.path: starts with ~" in refused(done)


# streams and locales


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0>&- 1>&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"), [(("check-config",), 0), (("status",), 3), (("changes",), 1)], ids=str
)
def test_streams_that_are_closed(
    idle: Site, closed: str, command: tuple[str, ...], code: int
) -> None:
    """The exit code says it all the same, and no file of ours takes their place."""
    done = ended(idle, *command, before=f"exec {closed}")
    assert done.returncode == code


def test_a_daemon_without_streams_serves(site: Site) -> None:
    """And writes nothing it logs into the mirror."""
    with subprocess.Popen(
        _after("exec 0>&- 1>&- 2>&-", site.command("serve")),
        env=site.environ,
    ) as process:
        try:
            # No delivery has arrived yet: the health is degraded, and the daemon is there.
            site.until(lambda: ended(site, "status").returncode == 1)
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert ended(site, "changes").returncode == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:nonsense"},
        {"COLUMNS": "\u00b2"},
        {"COLUMNS": "0"},
        {"TERM": "dumb", "LINES": "x"},
        {"PYTHONWARNINGS": "error"},
        {"PYTHONDEVMODE": "1"},
        {"PYTHONASYNCIODEBUG": "1", "PROMETHEUS_MULTIPROC_DIR": "/nowhere"},
    ],
    ids=str,
)
def test_what_cannot_be_written_as_it_is_is_written_out(
    idle: Site, environ: dict[str, str]
) -> None:
    """A value with a character of another alphabet, in whatever the terminal is said to be."""
    idle.configure(availability={"sellable": ["in_stock", "v\u00e9rf\u00fcgbar \u2603"]})
    for command, code in ((("check-config",), 0), (("status",), 3), (("--help",), 0)):
        done = ended(idle, *command, environ=environ, config=command != ("--help",))
        assert done.returncode == code, done.stderr


def test_a_path_that_this_locale_cannot_write_is_a_fault_of_the_key(idle: Site) -> None:
    """Else syncd and the shop would mean two files."""
    idle.configure(mirror={"path": "m\u00fcgs.db"})
    posix = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert "mirror.path: " in refused(ended(idle, "check-config", environ=posix))
    assert ended(idle, "check-config", environ={"LC_ALL": "C.UTF-8"}).returncode == 0


@pytest.mark.parametrize("is_bare", [False, True], ids=["our environment", "a bare one"])
def test_an_output_that_cannot_be_written_is_said(idle: Site, *, is_bare: bool) -> None:
    """A full disk is no success, and one fault; the first write fails, or only the last one."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            idle.command("check-config"),
            env={"PATH": os.defpath} if is_bare else idle.environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left on device" in refused(done, 1)


def test_a_mask_that_takes_our_own_rights(site: Site) -> None:
    """Whatever it takes from others, the daemon can use what it made."""
    site.mirror.parent.parent.chmod(0o755)
    before = os.umask(0o777)
    try:
        daemon = Daemon(site, {})
        site._daemons.append(daemon)
    finally:
        os.umask(before)
    daemon.log.chmod(0o600)  # the test made it, and an ordinary user could not read it
    daemon.wait_ready()
    site.until(lambda: daemon.status()["sweep"]["last_result"] is not None)
    assert site.mirror.parent.stat().st_mode & 0o700 == 0o700
    daemon.stop()


# limits


@pytest.mark.parametrize(("limit", "name"), [("-n 32", "RLIMIT_NOFILE"), ("-f 8", "RLIMIT_FSIZE")])
def test_a_limit_that_is_too_low_is_named(idle: Site, limit: str, name: str) -> None:
    """Before the mirror is made, which would be half a one."""
    for command in ("check-config", "serve"):
        done = ended(idle, command, before=f"ulimit {limit}")
        assert f"Error: {name} (" in refused(done)
    assert not idle.mirror.parent.exists()


def test_threads_that_cannot_be_started_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system says no more than that; the limits that it may be are named."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    environment.require_limits()
    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(ConfigurationError, match="RLIMIT_NPROC"):
        environment.require_limits()


@pytest.mark.parametrize("megabytes", [70, 120])
def test_too_little_memory_is_two_lines(idle: Site, megabytes: int) -> None:
    """Wherever it runs out: no traceback, and no success."""
    done = subprocess.run(
        _after(f"ulimit -v {megabytes * 1024}", idle.command("doctor", "--json")),
        env=idle.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode != 0


# the service manager


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "9" * 400},
        {"WATCHDOG_USEC": "\u00b2"},
        {"WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "x" * 200},
        {"NOTIFY_SOCKET": "@"},
        {"WEB_CONCURRENCY": "many", "FORWARDED_ALLOW_IPS": "x/y,,["},
    ],
    ids=str,
)
def test_variables_of_a_service_manager_that_is_none(site: Site, environ: dict[str, str]) -> None:
    """The daemon serves, as if there were none."""
    daemon = site.serve(environ=environ, filled=False)
    url = daemon.webhook_url.replace("/webhooks/dreamship", "/healthz")
    assert httpx.get(url, trust_env=False).status_code == 200
    daemon.stop()


@pytest.mark.parametrize("count", ["1", "2", "9" * 20, "1000000", "\u00b2", "-1"])
def test_sockets_that_are_none_are_refused(idle: Site, count: str) -> None:
    """What was handed over is an open file that does not listen, or nothing at all."""
    done = subprocess.run(
        _after("export LISTEN_PID=$$", idle.command("serve"), behind="3</dev/null"),
        env=idle.environ | {"LISTEN_FDS": count},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Error: $LISTEN_FDS: " in done.stderr
    assert "Traceback" not in done.stderr
