"""The documented installation, step by step, in a fresh Debian with a real systemd.

All tests share one machine, in this order: the first builds and installs the package, the last
purges it. They stay in one file, because the machine uses the ports of the host, and each test
continues from the state that earlier ones leave. tests/systemd/installation.py has the commands
that they share. They take two minutes, and two more to make a Debian in the temporary folder, so
they run in CI and on request.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import httpx
import pytest
from documents import ROOT, blocks
from systemd.installation import KEY, MIRROR, NEW_KEY, Installation, publish, release
from systemd.machine import Failed, booted, why_not
from systemd.saboteur import PARTS

from syncd.demo.fake_dreamship import Api, Catalog, serving_in_thread

pytestmark = pytest.mark.long

log = logging.getLogger(__name__)

RESTARTS = 20


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Give a machine with a checkout of these files; nothing is installed in it yet."""
    if os.environ.get("CI") != "true" and os.environ.get("SYNCD_TEST_INSTALL") != "1":
        pytest.skip("it takes minutes and runs when SYNCD_TEST_INSTALL=1 or CI=true is set")
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    shared = tmp_path_factory.mktemp("shared")
    shared.chmod(0o755)
    publish(shared / "origin")
    for script in ("shopper.py", "saboteur.py"):
        shutil.copy(ROOT / "tests" / "systemd" / script, shared)
    catalogue = Catalog.generate(5, 4, seed=1, now=lambda: datetime.now(UTC))
    api = Api(catalogue, (KEY, NEW_KEY))
    with (
        serving_in_thread(api) as base_url,
        booted(shared=shared, log=tmp_path_factory.mktemp("machine") / "boot.log") as machine,
    ):
        machine.run("git clone -q /srv/origin /root/syncd")
        machine.run("""echo 'APT::Get::Assume-Yes "true";' >/etc/apt/apt.conf.d/assume-yes""")
        yield Installation(machine, api, base_url, shared)


@pytest.fixture(scope="module")
def running(installation: Installation) -> Iterator[Installation]:
    """Give the machine with syncd installed and running, and a shop that queries all the time."""
    one = installation
    for port in (8787, 8788, 8789):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)), f"somebody else has port {port}"
    program, setup = blocks("Installing it")
    one.follow(program)
    # Nothing starts before there is a key.
    assert one.state == "inactive/dead"
    one.reach_dreamship("/etc/syncd/config.toml")
    answers = "--yes --key-file=- --shop-user=www-data --json"
    report = one.run(f"{setup.strip()} {answers}", stdin=f'api_key="{KEY}",\n')
    document = json.loads(report)
    assert document["daemon"] == "started"
    assert document["added_users"] == ["www-data"]
    assert KEY not in report
    one.until_equal()
    shop = subprocess.Popen(
        one.machine.command(
            *("runuser", "-u", "www-data", "--"),
            *("python3", "/srv/shopper.py", MIRROR, "/tmp/shop.json"),
        ),
        stdin=subprocess.DEVNULL,
    )
    try:
        yield one
    finally:
        shop.kill()
        shop.wait()


def test_the_installation_ends_with_a_filled_mirror(running: Installation) -> None:
    """Running, enabled, healthy, equal to its source, with its status known to systemd."""
    assert running.state == "active/running"
    assert running.run("systemctl is-enabled syncd.socket syncd.service") == "enabled\nenabled"
    assert httpx.get("http://127.0.0.1:8787/healthz", trust_env=False).status_code == 200
    # All is well but that no delivery has arrived yet.
    running.until(lambda: [one[:11] for one in running.status()["reasons"]] == ["No delivery"])
    assert not running.differences()
    assert running.machine.show("syncd", "StatusText")[0].startswith("webhooks ")
    # The metrics of the process are there in the sandbox, too.
    text = httpx.get("http://127.0.0.1:8788/metrics", trust_env=False).text
    assert "syncd_process_resident_memory_bytes" in text


def test_each_user_has_only_the_needed_rights(running: Installation) -> None:
    """Owners and modes; the shop reads the mirror, writes nothing, and sees no key."""
    paths = {
        "/etc/syncd": "750 root:syncd",
        "/etc/syncd/config.toml": "640 root:syncd",
        "/etc/syncd/api-keys": "600 syncd:syncd",
        "/var/lib/syncd": "750 syncd:syncd",
        "/run/syncd": "750 syncd:syncd",
        "/run/syncd/control.sock": "660 syncd:syncd",
        **dict.fromkeys([MIRROR, f"{MIRROR}-wal", f"{MIRROR}-shm"], "640 syncd:syncd"),
    }
    output = running.run(f"stat --format='%n %a %U:%G' {' '.join(paths)}").splitlines()
    assert output == [f"{path} {mode}" for path, mode in paths.items()]
    running.until(lambda: running.machine.path("/tmp/shop.json").exists())
    assert running.shop_report()["may_write"] == []
    with pytest.raises(Failed, match="Permission denied"):
        running.run("runuser -u www-data -- cat /etc/syncd/api-keys")


def test_the_daemon_is_sandboxed(running: Installation) -> None:
    """No new privileges, filtered system calls, only its own folders writable."""
    status = running.run(f"cat /proc/{running.main_pid}/status")
    values = dict(re.findall(r"^(\w+):\t(.*)$", status, re.MULTILINE))
    assert [values[name] for name in ("NoNewPrivs", "Seccomp")] == ["1", "2"]
    assert {int(values[name], 16) for name in ("CapBnd", "CapEff", "CapPrm", "CapAmb")} == {0}
    inside = f"nsenter --target={running.main_pid} --mount --wd=/"
    for folder, may_write in (("/var/lib/syncd", True), ("/etc", False), ("/opt/syncd", False)):
        assert may_write == (
            running.run(f"{inside} findmnt -n -o OPTIONS -T {folder}").startswith("rw")
        ), folder


def test_a_delivery_reaches_the_shop(running: Installation) -> None:
    """Answered 200, and the shop's next query has it."""
    event = running.event()
    answer = running.post(event)
    assert (answer.status_code, answer.json()) == (200, {"outcome": "applied"})
    output = running.query("SELECT variant_id, availability FROM availability")
    assert (
        dict(map(tuple, output))[event.object_id]
        == running.catalogue.current_values()[event.object_id]
    )


def test_restarts_under_load_refuse_no_request(running: Installation) -> None:
    """Twenty times `systemctl restart`: the old or the new process answers each request 200."""
    with running.loaded() as reports:
        began_s = time.monotonic()
        for _ in range(RESTARTS):
            running.run("systemctl restart syncd")
        seconds = time.monotonic() - began_s
    log.info("%d restarts in %.1f s: %s", RESTARTS, seconds, reports[0].statuses)
    running.require_all(reports[0])
    assert len(reports[0].accepted) > 20 * RESTARTS
    assert reports[0].longest_wait_s < 20
    assert running.machine.show("syncd", "NRestarts", "Result") == ["0", "success"]


def test_a_reload_applies_keys_and_configuration(running: Installation) -> None:
    """The same process goes on; a rotated key verifies the next delivery."""
    pid = running.main_pid
    assert running.post(running.event(), key=NEW_KEY).status_code == 401
    running.run("cat >>/etc/syncd/api-keys", stdin=f"{NEW_KEY}\n")
    running.set("/etc/syncd/config.toml", calls_per_minute=5999)
    running.run("systemctl reload syncd")
    running.until(lambda: running.status()["budget"]["calls_per_minute"] == 5999)
    running.until(lambda: running.state == "active/running")
    running.deliver(key=NEW_KEY)
    assert running.main_pid == pid


def test_a_reload_with_a_faulty_configuration_changes_nothing(running: Installation) -> None:
    """It fails with the reason; the daemon itself refuses a direct signal."""
    pid = running.main_pid
    running.set("/etc/syncd/config.toml", calls_per_minute="many")
    with pytest.raises(Failed, match="syncd"):
        running.run("systemctl reload syncd")
    text = running.run("journalctl --no-pager --unit=syncd --lines=20")
    assert "dreamship.calls_per_minute" in text
    running.run(f"kill -HUP {pid}")
    running.until(
        lambda: (
            "the old one stays in force"
            in running.run("journalctl --no-pager --unit=syncd --lines=20")
        )
    )
    running.until(lambda: running.state == "active/running")
    assert running.main_pid == pid
    running.deliver()
    running.set("/etc/syncd/config.toml", calls_per_minute=6000)
    running.run("systemctl reload syncd")


def test_a_restart_succeeds_after_the_configuration_is_repaired(running: Installation) -> None:
    """Systemd tries again and again; the log names the fault."""
    running.set("/etc/syncd/config.toml", calls_per_minute="many")
    with pytest.raises(Failed, match="syncd"):
        running.run("systemctl restart syncd")
    running.until(lambda: running.state == "activating/auto-restart")
    running.set("/etc/syncd/config.toml", calls_per_minute=6000)
    # It waits in the socket meanwhile.
    running.deliver()
    running.until(lambda: running.state == "active/running")


def test_a_killed_daemon_is_started_again(running: Installation) -> None:
    """The next process answers the requests that arrived meanwhile."""
    pid = running.main_pid
    before = int(running.machine.show("syncd", "NRestarts")[0])
    running.run("systemctl kill --signal=KILL --kill-whom=main syncd")
    running.until(lambda: running.state == "activating/auto-restart")
    running.deliver()
    running.until(lambda: running.state == "active/running")
    assert running.main_pid != pid
    assert int(running.machine.show("syncd", "NRestarts")[0]) == before + 1
    running.until_equal()


def test_the_watchdog_restarts_a_hanging_daemon(running: Installation) -> None:
    """The loop, the scheduler and the write thread, each blocked on purpose."""
    settings = (
        "WatchdogSec=3",
        "RestartSec=100ms",
        "Environment=PYTHONPATH=/opt/sabotage SABOTEUR=/var/lib/syncd/sabotage",
    )
    running.run("install -D -m 0644 /srv/saboteur.py /opt/sabotage/sitecustomize.py")
    with running.with_settings(*settings):
        for part in PARTS:
            before = int(running.machine.show("syncd", "NRestarts")[0])
            began_s = time.monotonic()
            running.run(f"runuser -u syncd -- sh -c 'echo {part} >/var/lib/syncd/sabotage'")
            running.until(partial(running.has_restarted, before))
            log.info("%s: blocked, running again in %.1f s", part, time.monotonic() - began_s)
            running.deliver()
        text = running.run("journalctl --no-pager --unit=syncd")
        assert text.count("Failed with result 'watchdog'") >= len(PARTS)
        # Where the threads stood, and no key.
        assert "Fatal Python error: Aborted" in text
        assert KEY not in text
    running.run("rm -r /opt/sabotage")


def test_keys_can_be_a_systemd_credential(running: Installation) -> None:
    """As documented: a file of root, which the daemon's user cannot read."""
    running.set("/etc/syncd/config.toml", api_key_file="")
    running.follow(blocks("What systemd does for it")[0])
    assert running.run("stat --format='%a %U:%G' /etc/syncd/api-keys") == "600 root:root"
    text = running.run("journalctl --no-pager --unit=syncd --lines=20")
    assert re.search(r'"api_keys": "\d from [^"]*credential', text)
    running.deliver()
    # What tmpfiles does at each boot leaves it so.
    running.run("systemd-tmpfiles --create syncd.conf")
    assert running.run("stat --format='%a %U:%G' /etc/syncd/api-keys") == "600 root:root"


def test_another_shop_has_a_separate_daemon(running: Installation) -> None:
    """A template: its own mirror and sockets, unaffected by the first daemon."""
    install, start = blocks("Several shops on one host")
    running.follow(install)
    running.run("cat >>/etc/syncd/mugs.api-keys", stdin=f"{KEY}\n")
    running.reach_dreamship("/etc/syncd/mugs.toml")
    running.follow(start)
    mirror = "/var/lib/syncd-mugs/availability.db"
    running.until_equal(mirror)
    running.deliver(over="/run/syncd-mugs.sock")
    running.run("runuser -u syncd -- syncd status -c /etc/syncd/mugs.toml || [ $? = 1 ]")
    assert running.run("stat --format='%a %U:%G' /etc/syncd/mugs.toml") == "640 root:syncd"
    running.run("systemctl disable --now syncd@mugs.socket syncd@mugs.service")
    running.run("rm -r /etc/syncd/mugs.* /var/lib/syncd-mugs")
    assert running.state == "active/running"


def test_an_upgrade_refuses_no_request(running: Installation) -> None:
    """Under load, to the next version of the checkout."""
    release(running.shared / "origin", "99.0.0")
    *build, install = blocks("Upgrading")[0].splitlines()
    running.follow("\n".join(build))
    with running.loaded() as reports:
        running.follow(install)
    running.require_all(reports[0])
    assert running.status()["version"] == "99.0.0"


def test_an_upgrade_starts_no_stopped_daemon(running: Installation) -> None:
    """An operator has stopped it, for instance to restore a backup."""
    running.run("systemctl stop syncd.socket syncd.service")
    running.follow("apt install --reinstall ./dist/syncd_*.deb")
    assert running.state == "inactive/dead"
    running.run("systemctl start syncd.socket syncd.service")


def test_a_removal_keeps_the_files_for_the_next_installation(running: Installation) -> None:
    """No daemon and no socket; a reader still reads; then everything is as before."""
    running.run("apt remove syncd")
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:8787/healthz", trust_env=False)
    assert running.query("SELECT count(*) > 0 FROM availability") == [[1]]
    assert running.run("stat --format='%a' /etc/syncd/config.toml") == "640"
    running.run("test ! -e /opt/syncd && test ! -e /usr/bin/syncd")
    running.follow(blocks("Upgrading")[0].splitlines()[-1])
    assert running.state == "active/running"
    running.deliver()


def test_a_delivery_starts_a_stopped_daemon(running: Installation) -> None:
    """The socket still listens."""
    running.run("systemctl stop syncd")
    assert running.state == "inactive/dead"
    running.deliver()
    running.until(lambda: running.state == "active/running")


def test_a_stopped_daemon_leaves_a_readable_mirror(running: Installation) -> None:
    """It exits 0, no socket listens, and the shop reads."""
    running.run("systemctl stop syncd.socket syncd.service")
    assert running.state == "inactive/dead"
    assert running.machine.show("syncd", "Result", "ExecMainStatus") == ["success", "0"]
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:8787/healthz", trust_env=False)
    before = running.shop_report()["asked"]
    running.until(lambda: running.shop_report()["asked"] > before + 10)
    running.until_equal()


def test_the_shop_could_read_at_every_moment(running: Installation) -> None:
    """Through restarts, kills, reloads and an upgrade, without write permission."""
    output = running.shop_report()
    log.info("the shop asked %(asked)d times, refused %(once)d, longest %(longest_s).2f s", output)
    assert output["twice"] == []
    assert output["once"] <= output["asked"] / 1000
    assert output["longest_s"] < 1.5


def test_the_purge_leaves_only_files_of_a_person(running: Installation) -> None:
    """The drop-in of the documentation and the user; no configuration, no key, no mirror."""
    running.follow(blocks("Removing it")[0])
    left = running.run(
        "find / -xdev -iname '*syncd*' "
        + " ".join(
            f"-not -path '{path}/*'" for path in ("/root", "/srv", "/var/log", "/run/systemd")
        )
    )
    assert left == "/etc/systemd/system/syncd.service.d"
    assert running.run("grep -c syncd /etc/passwd") == "1"
    assert running.run("systemctl list-unit-files --no-legend 'syncd*' || true") == ""
