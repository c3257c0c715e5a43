"""The environment is input: each fault in it is named, and never shows a traceback."""

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

pytestmark = pytest.mark.long

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
    """Run a command after the shell has run `before`; it must print no traceback."""
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
    """Return the error: `Error:` lines, then one `Try:`."""
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
def test_the_daemon_ignores_the_time_zone(site: Site, zone: str) -> None:
    """All its times are UTC, whatever TZ contains."""
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
def test_an_unusable_proxy_or_certificate_is_named_before_the_start(
    idle: Site, variable: str, value: str
) -> None:
    """By check-config, serve, reconcile-now, and doctor among its checks."""
    idle.configure(dreamship=OUTSIDE)
    for command in (("check-config",), ("serve",), ("reconcile-now",), ("replay", "--quarantined")):
        message = refused(ended(idle, *command, environ={variable: value}))
        assert f"Error: {variable}: " in message
        assert variable in message.splitlines()[-1]
    assert not idle.mirror.parent.exists()
    found = ended(idle, "doctor", environ={variable: value})
    assert (found.returncode, f"{variable}: " in found.stdout) == (1, True)
    # In the clear, on this host, none of it is in the way.
    idle.configure(dreamship={"base_url": "http://127.0.0.1:9/v1"})
    assert ended(idle, "check-config", environ={variable: value}).returncode == 0


def test_the_environment_is_checked_for_notify_url_too(idle: Site) -> None:
    """A variable that affects both URLs is reported once."""
    idle.configure(notify={"url": "https://hooks.example.com/T0/hush"})
    message = refused(ended(idle, "check-config", environ={"SSL_CERT_FILE": "/nowhere"}))
    assert message.count("SSL_CERT_FILE: ") == 1
    assert "notify.url" in message
    assert "hush" not in message
    assert ended(idle, "check-config", environ={"NO_PROXY": "fe80::/10,[::1]"}).returncode == 0


# folders


def test_a_deleted_current_folder_matters_for_relative_paths_only(idle: Site) -> None:
    """The fault names the paths that were searched."""
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
def test_an_inaccessible_current_folder_is_named(tmp_path: Path) -> None:
    """The documented command, called from root's home."""
    done = _in_closed_folder(tmp_path / "home", "check-config")
    message = refused(done)
    assert f"{tmp_path}/home/config.toml cannot be accessed: Permission denied" in message
    assert "--config" in message


@pytest.mark.parametrize("drop", [("HOME",), ()])
def test_an_unknown_home_is_a_fault_of_the_key_that_uses_it(
    idle: Site, drop: tuple[str, ...]
) -> None:
    """The user has none, or does not exist."""
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
def test_closed_streams_keep_the_exit_code(
    idle: Site, closed: str, command: tuple[str, ...], code: int
) -> None:
    """No file of ours gets their descriptor."""
    done = ended(idle, *command, before=f"exec {closed}")
    assert done.returncode == code


def test_a_daemon_without_streams_serves(site: Site) -> None:
    """It writes no log line into the mirror."""
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
def test_characters_outside_the_encoding_are_escaped(idle: Site, environ: dict[str, str]) -> None:
    """A value in another alphabet, in any encoding of the terminal."""
    idle.configure(availability={"sellable": ["in_stock", "v\u00e9rf\u00fcgbar \u2603"]})
    for command, code in ((("check-config",), 0), (("status",), 3), (("--help",), 0)):
        done = ended(idle, *command, environ=environ, config=command != ("--help",))
        assert done.returncode == code, done.stderr


def test_a_path_outside_the_locale_is_a_fault_of_the_key(idle: Site) -> None:
    """Else syncd and the shop would use two files."""
    idle.configure(mirror={"path": "m\u00fcgs.db"})
    posix = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert "mirror.path: " in refused(ended(idle, "check-config", environ=posix))
    assert ended(idle, "check-config", environ={"LC_ALL": "C.UTF-8"}).returncode == 0


@pytest.mark.parametrize("is_bare", [False, True], ids=["our environment", "a bare one"])
def test_a_full_disk_behind_stdout_is_a_fault(idle: Site, *, is_bare: bool) -> None:
    """One message and no success, if the first write fails or only the last one."""
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


def test_a_umask_of_0777_does_not_lock_the_daemon_out(site: Site) -> None:
    """It can use the files that it made."""
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
def test_a_limit_too_low_to_start_is_named(idle: Site, limit: str, name: str) -> None:
    """Before the mirror is made."""
    for command in ("check-config", "serve"):
        done = ended(idle, command, before=f"ulimit {limit}")
        assert f"Error: {name} (" in refused(done)
    assert not idle.mirror.parent.exists()


def test_a_failed_thread_start_names_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system does not say which limit it was."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    environment.require_limits()
    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(ConfigurationError, match="RLIMIT_NPROC"):
        environment.require_limits()


@pytest.mark.parametrize("megabytes", [70, 120])
def test_running_out_of_memory_is_two_lines(idle: Site, megabytes: int) -> None:
    """Wherever it happens: no traceback, and no exit code 0."""
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
def test_stale_variables_of_a_service_manager_are_ignored(
    site: Site, environ: dict[str, str]
) -> None:
    """The daemon serves."""
    daemon = site.serve(environ=environ, filled=False)
    url = daemon.webhook_url.replace("/webhooks/dreamship", "/healthz")
    assert httpx.get(url, trust_env=False).status_code == 200
    daemon.stop()


@pytest.mark.parametrize("count", ["1", "2", "9" * 20, "1000000", "\u00b2", "-1"])
def test_invalid_sockets_from_a_service_manager_are_refused(idle: Site, count: str) -> None:
    """A descriptor that does not listen, or none at all."""
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
