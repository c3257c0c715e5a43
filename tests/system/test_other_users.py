"""Other users: members of the group, strangers, and root beside the daemon's user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import Daemon, Site
from documents import ROOT

from syncd.cli import ownership
from syncd.errors import UsageError

pytestmark = pytest.mark.long

AS_USER = str(ROOT / "tests" / "as_user.py")
SHOP, GROUP = 65_533, 65_532
NEEDS_ROOT = "only root can become another user"


def lines_of(text: str) -> str:
    """Return the error: `Error:` lines, then one `Try:`, and nothing else."""
    *errors, last = text.splitlines()
    assert errors, text
    assert all(line.startswith("Error: ") for line in errors), text
    assert last.startswith("Try: "), text
    return text


# the shop's user


@pytest.fixture
def shared_site(open_site: Callable[..., AbstractContextManager[Site]]) -> Iterator[Daemon]:
    """Give a daemon of root's whose mirror, configuration and socket are a group's to read."""
    with TemporaryDirectory() as folder, open_site(Path(folder), items=2) as site:
        keys = site.folder / "api-keys"
        keys.write_text(site.key)
        keys.chmod(0o600)
        site.configure(dreamship={"api_keys": [], "api_key_file": "api-keys"})
        daemon = site.serve()
        for path in (site.folder, site.mirror.parent):
            os.chown(path, -1, GROUP)
            path.chmod(0o750)
        for path in (site.config, site.socket, *site.mirror.parent.iterdir()):
            os.chown(path, -1, GROUP)
        site.config.chmod(0o640)
        yield daemon


def as_shop(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user who is only in the group."""
    return subprocess.run(
        [sys.executable, AS_USER, str(SHOP), str(GROUP), *arguments, "-c", str(site.config)],
        cwd="/",
        env=site.unmeasured,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason=NEEDS_ROOT)
def test_group_members_can_run_every_reading_command(shared_site: Daemon) -> None:
    """Mirror and socket, while the daemon runs and after; the keys stay closed to them."""
    site = shared_site.site
    shared_site.deliver_first()
    variant_id = str(min(site.catalogue.variants))
    for arguments in (
        ("status", "--json"),
        ("availability", variant_id),
        ("explain", variant_id),
        ("changes", "--json"),
        ("deliveries",),
        ("reconcile-now", "--json"),
    ):
        done = as_shop(site, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert site.key not in done.stdout + done.stderr
    for arguments in (("check-config",), ("serve",)):
        done = as_shop(site, *arguments)
        assert done.returncode == 2
        output = lines_of(done.stderr)
        assert "dreamship.api_key_file: cannot be read: Permission denied" in output
    assert as_shop(site, "doctor").returncode == 1
    shared_site.stop()
    for arguments, code in ((("availability", variant_id), 0), (("changes",), 0), (("status",), 3)):
        assert as_shop(site, *arguments).returncode == code
    # Without a daemon the command needs an api key, and the error names the unreadable file.
    done = as_shop(site, "reconcile-now")
    assert done.returncode == 2
    assert "api_key_file: cannot be read" in lines_of(done.stderr)


@pytest.mark.skipif(os.geteuid() != 0, reason=NEEDS_ROOT)
def test_an_unreadable_configuration_is_named(shared_site: Daemon) -> None:
    """No traceback, and no hint to write another configuration."""
    site = shared_site.site
    os.chown(site.config, -1, 0)
    done = as_shop(site, "status")
    assert done.returncode == 2
    assert "member of its group" in lines_of(done.stderr)


@pytest.mark.skipif(os.geteuid() != 0, reason=NEEDS_ROOT)
def test_an_inaccessible_folder_is_two_lines(shared_site: Daemon) -> None:
    """Of mirror or socket: the message says "no access", and not "missing"."""
    site = shared_site.site
    site.mirror.parent.chmod(0o700)
    done = as_shop(site, "availability", "1")
    assert done.returncode == 1
    assert "Permission denied" in lines_of(done.stderr)
    closed = site.folder / "closed"
    closed.mkdir(mode=0o700)
    site.configure(control={"socket": str(closed / "control.sock")})
    done = as_shop(site, "status")
    assert done.returncode == 1
    assert "this user may not use" in lines_of(done.stderr)


# root


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("part", ["folder", "file", "link"])
def test_root_does_not_write_the_mirror_of_another_user(idle: Site, part: str) -> None:
    """The daemon's user could not open such files; the hint has the command to run."""
    idle.mirror.parent.mkdir()
    path = idle.mirror.parent
    if part == "file":
        idle.mirror.touch()
        path = idle.mirror
    elif part == "link":
        path = idle.folder / "elsewhere"
        path.mkdir()
        idle.mirror.parent.rmdir()
        idle.mirror.parent.symlink_to(path)
    os.chown(path, 1, 1)  # a user that every Debian has
    for command in (("serve",), ("reconcile-now",), ("replay", "--quarantined")):
        done = idle.syncd(*command)
        assert done.returncode == 2
        message = lines_of(done.stderr)
        assert re.search(rf"runuser -u daemon -- .* {command[0]} .*--config {idle.config}", message)
    left = [] if part != "file" else [idle.mirror]
    assert list(idle.mirror.parent.iterdir()) == left


def test_root_may_write_its_own_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own folder, a new one, and all files in a container of its own."""
    owners = {tmp_path: 0}
    monkeypatch.setattr(ownership, "_owner", lambda path: owners.get(path, 0))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ownership.require_owner(tmp_path / "a.db")
    owners[tmp_path] = 4_000_000_000
    with pytest.raises(UsageError) as caught:
        ownership.require_owner(tmp_path / "a.db")
    # A number that has no name.
    assert "setpriv --reuid 4000000000 " in caught.value.hint
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ownership.require_owner(tmp_path / "a.db")
