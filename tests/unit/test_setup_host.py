"""The steps of setup as root, with replaced programs that change nothing."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest
from documents import blocks

from syncd.cli import setup_apply
from syncd.cli.setup_questions import parse_url, parse_values
from syncd.config import Config
from syncd.errors import UsageError
from syncd.setup import programs, service, sites, users
from syncd.setup.account import Values
from syncd.setup.files import NewFile
from syncd.setup.plan import Plan
from syncd.setup.programs import Done
from syncd.setup.service import ServiceFailed


class Host:
    """A host with systemd; `commands` are those that change something."""

    def __init__(self, *, active: bool = True, enabled: bool = True, credential: str = "") -> None:
        self.active, self.enabled, self.credential = active, enabled, credential
        self.commands: list[str] = []
        self.failing = ""
        self.log = ""

    def run(self, command: Sequence[str]) -> Done:
        """Answer as systemctl does."""
        line = " ".join(command)
        if command[:2] == ["systemctl", "show"]:
            return Done(0, self._properties())
        if command[:2] == ["systemctl", "cat"]:
            return Done(0, f"#LoadCredential=\n[Service]\n{self.credential}\n")
        if command[0] == "journalctl":
            return Done(0, self.log)
        self.commands.append(line)
        return Done(1, "Job failed.") if line == self.failing else Done(0)

    def _properties(self) -> str:
        return "\n".join(
            [
                "LoadState=loaded",
                f"ActiveState={'active' if self.active else 'inactive'}",
                f"UnitFileState={'enabled' if self.enabled else 'disabled'}",
                "Listen=127.0.0.1:8787 (Stream)",
            ]
        )


ENABLE = "systemctl enable syncd.socket syncd.service"


@pytest.mark.parametrize(
    ("host", "changed", "done", "commands"),
    [
        (
            Host(active=False, enabled=False),
            [],
            "started",
            [ENABLE, "systemctl start syncd.socket", "systemctl restart syncd.service"],
        ),
        (Host(), [], "unchanged", []),
        (Host(), ["availability.sellable"], "reloaded", ["systemctl reload syncd.service"]),
        (Host(), ["api keys"], "reloaded", ["systemctl reload syncd.service"]),
        (Host(), ["webhook.path"], "restarted", ["systemctl restart syncd.service"]),
        (
            Host(credential="LoadCredential=dreamship-api-keys:/etc/syncd/api-keys"),
            ["api keys"],
            "restarted",
            ["systemctl restart syncd.service"],
        ),
    ],
)
def test_the_daemon_gets_the_new_configuration(
    host: Host, changed: list[str], done: str, commands: list[str]
) -> None:
    """By a start, a reload, or a restart where a reload does not apply it."""
    assert service.apply(changed, host.run) == done
    assert host.commands == ["systemctl daemon-reload", *commands]


def test_a_failed_start_shows_the_errors_of_the_log() -> None:
    """In plain words, as check-config wrote them."""
    host = Host(active=False)
    host.failing = "systemctl restart syncd.service"
    once = "Starting\nError: webhook.listen: is in use\nTry: stop the other program\nFailed\n"
    host.log = once * 3
    with pytest.raises(ServiceFailed, match=r"cannot restart: webhook\.listen: is in use$") as one:
        service.apply([], host.run)
    assert one.value.hint.startswith("stop the other program; then run `syncd setup` again")


def test_the_listener_is_that_of_the_socket_unit() -> None:
    """It has precedence over the configuration."""
    assert service.listener(Host().run) == "127.0.0.1:8787"
    assert service.listener(lambda _: Done(0, "Listen=/run/syncd-a.sock (Stream)")) == (
        "unix:/run/syncd-a.sock"
    )
    assert service.listener(lambda _: Done(1, "")) == ""


def test_a_proxy_that_only_the_shell_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key was tested over it, and the service would not use it."""
    monkeypatch.setenv("https_proxy", "http://user:hush@proxy:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    empty = NewFile(Path("/etc/syncd/config.toml"), b"", None)
    said: list[str] = []
    setup_apply.warn_of_proxy(Plan(empty, None, [], Config()), Host().run, said.append)
    assert "$https_proxy" in said[0]
    assert "hush" not in "".join(said)
    said.clear()
    environment = Done(0, "Environment=https_proxy=http://proxy:1")
    setup_apply.warn_of_proxy(Plan(empty, None, [], Config()), lambda _: environment, said.append)
    assert said == []


def test_the_credential_of_the_unit_is_found() -> None:
    """So that no key is written where nobody reads it."""
    host = Host(credential="LoadCredential=dreamship-api-keys:/etc/syncd/api-keys")
    assert service.credential_file(host.run) == Path("/etc/syncd/api-keys")
    assert service.credential_file(Host().run) is None


# --- users ---------------------------------------------------------------------------------------


def test_a_shop_user_is_added_once() -> None:
    """A member is not added again; a failure says what to run."""
    me = pwd.getpwuid(os.getuid()).pw_name
    mine = grp.getgrgid(os.getgid()).gr_name
    host = Host()
    assert not users.add_member(me, mine, host.run)
    assert users.add_member(me, "no-such-group", host.run)
    assert host.commands == [f"gpasswd --add {me} no-such-group"]
    with pytest.raises(UsageError, match="could not be added"):
        users.add_member(me, "no-such-group", lambda _: Done(3, "gpasswd: no"))


def test_services_without_the_new_group_are_named(tmp_path: Path) -> None:
    """By the unit of their control group; a web server needs no restart."""
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    uid, gid = user.pw_uid, group.gr_gid
    for number, (name, groups, unit) in enumerate(
        [
            ("php-fpm8.2", "33", "/system.slice/php8.2-fpm.service"),
            ("node", "33 44", "/system.slice/shop.service/worker"),
            ("python3", f"33 {gid}", "/system.slice/new.service"),
            ("nginx", "33", "/system.slice/nginx.service"),
            ("node", "33", "/user.slice/user-1.slice/user@1.service/app.slice/app.scope"),
        ],
        start=100,
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "status").write_text(f"Name:\t{name}\nUid:\t{uid}\nGid:\t33\nGroups:\t{groups}\n")
        (folder / "cgroup").write_text(f"0::{unit}\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "999").mkdir()  # it has ended
    found = users.without_group([user.pw_name], group.gr_name, tmp_path)
    assert found == ["node (process 104)", "php8.2-fpm.service", "shop.service"]


def test_the_user_of_the_daemon_is_created_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """By systemd-sysusers; a failure has its output."""
    monkeypatch.setattr(users, "USER", "no-such-user")
    with pytest.raises(UsageError, match="could not be created: it is read-only"):
        users.create(lambda _: Done(1, "it is read-only"))


def test_programs_get_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the environment; a missing program is an exit code."""
    monkeypatch.setenv("SYNCD_DREAMSHIP_API_KEYS", "hush")
    assert "hush" not in programs.run(["env"]).output
    assert programs.run(["/no/such/program"]).code == 127


# --- sites and answers ---------------------------------------------------------------------------


def plain(text: str) -> list[str]:
    """Return the lines without comments and empty lines."""
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize("server", ["nginx", "caddy"])
def test_the_printed_sites_are_the_documented_ones(server: sites.Server) -> None:
    """Which the tests run behind real servers."""
    (documented,) = blocks("Behind your web server", server)
    url = "https://hooks.example.com/webhooks/dreamship"
    assert plain(sites.site(server, url, "127.0.0.1:8787", 1024 * 1024)) == plain(documented)


def test_a_site_has_the_host_the_port_the_path_and_the_limit() -> None:
    """Also of a unix socket."""
    url = "https://[2001:db8::1]:8443/hook"
    nginx = sites.site("nginx", url, "unix:/run/a.sock", 2_000_000)
    for part in ("8443 ssl", "[2001:db8::1];", "= /hook {", "http://unix:/run/a.sock;", "2000000;"):
        assert part in nginx
    caddy = sites.site("caddy", url, "unix:/run/a.sock", 2 * 1024 * 1024)
    for part in ("[2001:db8::1]:8443 {", "path /hook", "reverse_proxy unix//run/a.sock", "2MiB"):
        assert part in caddy


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        ("hooks.example.com", "https://hooks.example.com/hook"),
        ("https://hooks.example.com/", "https://hooks.example.com/hook"),
        ("https://a.example/b/c", "https://a.example/b/c"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1/hook"),
    ],
)
def test_a_url_gets_the_path_of_the_listener(text: str, url: str) -> None:
    """A host alone is what people type."""
    assert parse_url(text, "/hook") == url


@pytest.mark.parametrize(
    "text", ["http://a.example", "https://u:p@a.example", "https://a.example/?q", "ftp://a", "a b"]
)
def test_a_url_that_dreamship_cannot_use_is_refused(text: str) -> None:
    """With the reason, without the text."""
    with pytest.raises(ValueError, match="must") as caught:
        parse_url(text, "/hook")
    assert text not in str(caught.value)


def test_values_are_chosen_by_number_or_by_name() -> None:
    """Both in one answer; a number without a row is a value."""
    values = Values({"in_stock": 5, "low": 2})
    assert parse_values("2, in_stock,7", values) == ("low", "in_stock", "7")
    with pytest.raises(ValueError, match="no value"):
        parse_values(" , ", values)
