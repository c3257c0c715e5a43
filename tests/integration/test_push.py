"""Pushes of a running daemon: each change arrives in order, also if the receiver fails."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Daemon, Site
from pushing import (
    SECRET,
    WRONG_SECRET,
    Receiver,
    configure_push,
    lines_of,
    receiving,
    state_after,
    state_of,
)

from syncd.store import pushes

pytestmark = pytest.mark.long

VALUES = ("out_of_stock", "in_stock")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def to_url(receiver: Receiver, name: str = "shop", **keys: Any) -> dict[str, Any]:
    return {"name": name, "url": receiver.url, "secret": SECRET, **keys}


def status_of(daemon: Daemon, name: str = "shop") -> dict[str, Any]:
    return next(one for one in daemon.status()["push"] if one["name"] == name)


def newest(site: Site) -> int:
    return int(site.rows("SELECT max(seq) AS seq FROM changes")[0]["seq"])


def until_pushed(site: Site, daemon: Daemon, name: str = "shop") -> None:
    """Wait until the receiver has taken everything that the feed has now."""
    seq = newest(site)
    site.until(
        lambda: (
            (one := status_of(daemon, name))["seq"] is not None
            and one["seq"] >= seq
            and not one["copying"]
            and not one["error"]
        )
    )


def is_equal(site: Site, receiver: Receiver) -> bool:
    return state_after(receiver.taken) == state_of(site.rows("SELECT * FROM availability"))


def change(site: Site, daemon: Daemon, number: int) -> None:
    """Deliver so many changes."""
    variants = sorted(site.catalogue.variants)
    for index in range(number):
        variant = site.catalogue.variants[variants[index % len(variants)]]
        value = VALUES[variant.availability == VALUES[0]]
        daemon.deliver(site.change(variant.variant_id, value))


def test_a_receiver_gets_everything_and_then_each_change(site: Site, receiver: Receiver) -> None:
    """First a full copy, then the feed; verified with the library of the specification."""
    configure_push(site, to_url(receiver, batch=7))
    daemon = site.serve()
    until_pushed(site, daemon)
    assert receiver.taken[0]["full"]
    assert receiver.taken[0]["begin"]
    assert is_equal(site, receiver)
    change(site, daemon, 20)
    until_pushed(site, daemon)
    assert is_equal(site, receiver)
    feed = site.rows("SELECT * FROM changes")
    after = receiver.changes[0]["seq"]
    keys = ("seq", "variant_id", "item_id", "old_availability", "availability", "cause", "missed")
    assert [[one[key] for key in keys] for one in receiver.changes] == [
        [one[key] for key in keys] for one in feed if one["seq"] >= after
    ]
    assert len(set(receiver.ids)) == len(receiver.ids)
    assert {body["mirror"] for body in receiver.taken} == {receiver.taken[0]["mirror"]}
    assert all(len(body["changes"]) <= 7 for body in receiver.taken)
    daemon.stop()


def test_a_receiver_that_was_down_gets_everything_in_order(site: Site) -> None:
    """Refused connections first, then 500, then it is killed in the middle."""
    with receiving() as first:
        port = first.server_port
        table = to_url(first, batch=3)
    configure_push(site, table)
    daemon = site.serve()
    site.until(lambda: status_of(daemon)["error"])
    assert status_of(daemon)["error"] == "could not be reached: Connection refused"
    assert daemon.status()["health"] != "failing"
    with receiving(port) as second:
        second.answer = lambda _: 500 if len(second.messages) % 3 else 200
        daemon.process.send_signal(signal.SIGHUP)
        site.until(lambda: second.taken)
        change(site, daemon, 5)
    with receiving(port) as third:
        daemon.process.send_signal(signal.SIGHUP)
        change(site, daemon, 5)
        until_pushed(site, daemon)
        bodies = second.taken + third.taken
    assert state_after(bodies) == state_of(site.rows("SELECT * FROM availability"))
    seqs = [one["seq"] for body in bodies if not body["full"] for one in body["changes"]]
    assert seqs == sorted(set(seqs))
    daemon.stop()


def test_a_repeated_batch_has_the_same_id(site: Site, receiver: Receiver) -> None:
    """So that a receiver recognises it; each attempt has a new timestamp and signature."""
    receiver.answer = lambda _: 200 if len(receiver.messages) > 2 else 500
    configure_push(site, to_url(receiver))
    daemon = site.serve()
    until_pushed(site, daemon)
    assert receiver.ids[0] == receiver.ids[1] == receiver.ids[2]
    assert status_of(daemon)["failures"] == 2
    assert daemon.logged("a push failed")[0]["error"] == "answered 500"
    assert daemon.logged("a push works again")
    daemon.stop()


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404])
def test_any_other_answer_is_retried(site: Site, receiver: Receiver, status: int) -> None:
    """Redirects are not followed."""
    receiver.headers_sent = {"Location": receiver.url} if status < 400 else {}
    receiver.answer = lambda _: 200 if len(receiver.messages) > 1 else status
    configure_push(site, to_url(receiver))
    daemon = site.serve()
    until_pushed(site, daemon)
    redirect = "; redirects are not followed" if status < 400 else ""
    assert daemon.logged("a push failed")[0]["error"] == f"answered {status}{redirect}"
    assert is_equal(site, receiver)
    daemon.stop()


def test_retry_after_is_obeyed(site: Site, receiver: Receiver) -> None:
    """No attempt before."""
    receiver.answer = lambda _: 200 if len(receiver.messages) > 1 else 429
    receiver.headers_sent = {"Retry-After": "4"}
    configure_push(site, to_url(receiver))
    daemon = site.serve(filled=False)
    site.until(lambda: receiver.messages)
    began_s = time.monotonic()
    site.until(lambda: len(receiver.messages) > 1)
    assert time.monotonic() - began_s > 3.5
    assert daemon.logged("a push failed")[0]["next_in_s"] == 4
    daemon.stop()


def test_410_stops_one_push_until_a_reload(site: Site, receiver: Receiver) -> None:
    """The status, the health and the log say so; other pushes and deliveries never notice."""
    with receiving() as other:
        receiver.answer = lambda _: 410
        configure_push(site, to_url(receiver), to_url(other, "other"))
        daemon = site.serve()
        site.until(lambda: status_of(daemon)["stopped"])
        change(site, daemon, 3)
        until_pushed(site, daemon, "other")
        assert is_equal(site, other)
        assert len(receiver.messages) == 1
        document = daemon.status()
        assert document["health"] == "degraded"
        assert any("The push shop is stopped" in one for one in document["reasons"])
        assert daemon.logged("a push was stopped by its receiver")[0]["push"] == "shop"
        shown = site.syncd("push")
        assert shown.returncode == 1
        assert "stopped: answered 410" in shown.stdout
        receiver.answer = lambda _: 200
        daemon.process.send_signal(signal.SIGHUP)
        until_pushed(site, daemon)
        assert is_equal(site, receiver)
        daemon.stop()


def test_a_slow_receiver_delays_nothing(site: Site, receiver: Receiver) -> None:
    """Neither deliveries nor the stop of the daemon."""

    def sleep(_: object) -> int:
        time.sleep(3)
        return 200

    receiver.answer = sleep
    configure_push(site, to_url(receiver))
    daemon = site.serve()
    site.until(lambda: status_of(daemon)["copying"])
    began_s = time.monotonic()
    change(site, daemon, 10)
    assert time.monotonic() - began_s < 2
    began_s = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("round_", range(3))
def test_nothing_is_lost_when_the_daemon_is_killed(
    site: Site, receiver: Receiver, round_: int
) -> None:
    """Order is kept, and only whole batches come twice, with the id they had before."""
    configure_push(site, to_url(receiver, batch=3))
    variants = sorted(site.catalogue.variants)
    numbers = count()
    chances = (0.13, 0.31, 0.07, 0.53, 0.19, 0.02)
    for index in range(6):
        daemon = site.serve(filled=index == 0)
        with daemon.loaded(variants, VALUES, numbers):
            time.sleep(chances[(index + round_) % 6])
            daemon.kill()
    daemon = site.serve()
    until_pushed(site, daemon)
    assert is_equal(site, receiver)
    assert receiver.changes
    check_order(receiver)
    feed = [row["seq"] for row in site.rows("SELECT seq FROM changes")]
    first = receiver.changes[0]["seq"]
    assert sorted({one["seq"] for one in receiver.changes}) == [seq for seq in feed if seq >= first]
    daemon.stop()


def test_a_full_copy_goes_on_after_a_kill(site: Site, receiver: Receiver) -> None:
    """It begins once; a batch on its way comes again, with the id it had."""

    def slowly(_: object) -> int:
        time.sleep(0.05)
        return 200

    site.serve().stop()
    receiver.answer = slowly
    configure_push(site, to_url(receiver, batch=1))
    for number in (4, 9):
        daemon = site.serve(filled=False)
        site.until(lambda number=number: len(receiver.taken) >= number)  # type: ignore[misc]
        daemon.kill()
    daemon = site.serve(filled=False)
    until_pushed(site, daemon)
    assert is_equal(site, receiver)
    ids = receiver.taken_ids()
    begins = {one for one, body in zip(ids, receiver.taken, strict=True) if body.get("begin")}
    assert len(begins) == 1
    # The variants, the end, and two batches on their way.
    copies = [body for body in receiver.taken if body["full"]]
    assert 21 <= len(copies) <= 23
    assert len({one for one, body in zip(ids, receiver.taken, strict=True) if body["full"]}) == 21
    daemon.stop()


def check_order(receiver: Receiver) -> None:
    """Each batch follows the one before, or repeats exactly that one."""
    seqs = [
        (one, [row["seq"] for row in body["changes"]])
        for one, body in zip(receiver.taken_ids(), receiver.taken, strict=True)
        if not body["full"]
    ]
    last = 0
    before: tuple[str, list[int]] | None = None
    for one in seqs:
        if before is not None and one[0] == before[0]:
            assert one[1] == before[1]
            continue
        assert one[1][0] > last
        assert one[1] == sorted(set(one[1]))
        last, before = one[1][-1], one


def test_a_command_gets_json_lines(site: Site, tmp_path: Path) -> None:
    """Exit code 0 takes the batch; the arguments reach no shell, and no api key reaches it."""
    script = tmp_path / "take"
    script.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/argument\nenv > {tmp_path}/env\n'
        f"test -e {tmp_path}/ready || exit 3\ncat >> {tmp_path}/lines\n"
    )
    script.chmod(0o755)
    configure_push(site, {"name": "shop", "command": [str(script), "$(id) token"], "batch": 50})
    daemon = site.serve(environ={"SYNCD_DREAMSHIP_API_KEYS": site.key})
    site.until(lambda: status_of(daemon)["error"])
    assert status_of(daemon)["error"] == "the command ended 3"
    (tmp_path / "ready").touch()
    daemon.process.send_signal(signal.SIGHUP)
    change(site, daemon, 3)
    until_pushed(site, daemon)
    assert (tmp_path / "argument").read_text() == "$(id) token\n"
    assert site.key not in (tmp_path / "env").read_text()
    lines = lines_of((tmp_path / "lines").read_text())
    bodies, at = [], 0
    while at < len(lines):
        size = lines[at]["changes"]
        bodies.append(lines[at] | {"changes": lines[at + 1 : at + 1 + size]})
        at += 1 + size
    assert state_after(bodies) == state_of(site.rows("SELECT * FROM availability"))
    daemon.stop()


def test_a_command_ends_with_the_daemon(site: Site, tmp_path: Path) -> None:
    """Its process group too, also if it ignores SIGTERM."""
    script = tmp_path / "take"
    script.write_text(f"#!/bin/sh\ntrap '' TERM\nsleep 60 & echo $! > {tmp_path}/pid\nwait\n")
    script.chmod(0o755)
    configure_push(site, {"name": "shop", "command": [str(script)]})
    daemon = site.serve()
    site.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    daemon.stop()
    pid = (tmp_path / "pid").read_text().strip()
    site.until(lambda: not is_alive(pid), within_s=5)


def is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def test_push_sets_where_a_push_goes_on(site: Site, receiver: Receiver) -> None:
    """Through the daemon, and without one; `0` begins with a full copy."""
    configure_push(site, to_url(receiver))
    daemon = site.serve()
    change(site, daemon, 6)
    until_pushed(site, daemon)
    taken = len(receiver.taken)
    since = newest(site) - 3
    done = site.syncd("push", "--from", str(since), "shop")
    assert (done.returncode, done.stderr) == (0, "")
    site.until(lambda: len(receiver.taken) > taken)
    until_pushed(site, daemon)
    assert [one["seq"] for one in receiver.taken[-1]["changes"]] == [
        since + 1,
        since + 2,
        since + 3,
    ]
    assert len(set(receiver.taken_ids())) == len(receiver.taken)
    assert site.syncd("push").returncode == 0
    daemon.stop()
    assert f"seq {newest(site)}, 0 changes behind" in site.syncd("push").stdout
    assert site.syncd("push", "--from", "0").returncode == 0
    (line,) = lines_of(site.syncd("push", "--dry-run").stdout)
    assert (line["full"], line["begin"], line["end"]) == (True, True, False)
    taken = len(receiver.taken)
    daemon = site.serve(filled=False)
    until_pushed(site, daemon)
    assert receiver.taken[taken]["begin"]
    for arguments in (["nobody"], ["--from", "-1"], ["--from", "1", "--dry-run"]):
        assert site.syncd("push", *arguments).returncode == 2
    daemon.stop()


def test_a_reload_begins_and_ends_pushes(site: Site, receiver: Receiver) -> None:
    """The page and the metrics show each one; a push that stays sends nothing again."""
    with receiving() as other:
        configure_push(site, to_url(receiver))
        daemon = site.serve()
        until_pushed(site, daemon)
        taken = len(receiver.taken)
        configure_push(site, to_url(receiver), to_url(other, "other"))
        daemon.process.send_signal(signal.SIGHUP)
        site.until(lambda: len(daemon.status()["push"]) == 2)
        until_pushed(site, daemon, "other")
        assert is_equal(site, other)
        assert len(receiver.taken) == taken
        page = httpx.get(daemon.admin_url, trust_env=False).text
        metrics = httpx.get(f"{daemon.admin_url}/metrics", trust_env=False).text
        for name in ("shop", "other"):
            assert f"Push {name}" in page
            assert f'syncd_push_seq{{name="{name}"}} {newest(site)}.0' in metrics
        configure_push(site, to_url(other, "other"))
        daemon.process.send_signal(signal.SIGHUP)
        site.until(lambda: [one["name"] for one in daemon.status()["push"]] == ["other"])
        change(site, daemon, 3)
        until_pushed(site, daemon, "other")
        assert len(receiver.taken) == taken
        # The position of the push that was removed is kept.
        configure_push(site, to_url(receiver))
        daemon.process.send_signal(signal.SIGHUP)
        site.until(lambda: [one["name"] for one in daemon.status()["push"]] == ["shop"])
        until_pushed(site, daemon)
        assert not any(body["full"] for body in receiver.taken[taken:])
        assert is_equal(site, receiver)
        daemon.stop()


def test_the_control_socket_refuses_an_invalid_position(site: Site, receiver: Receiver) -> None:
    """With a reason, and the push goes on."""
    configure_push(site, to_url(receiver))
    daemon = site.serve()
    transport = httpx.HTTPTransport(uds=str(site.socket))
    with httpx.Client(transport=transport, base_url="http://syncd") as client:
        for body in ("", "[]", '{"name": "shop"}', '{"name": "shop", "seq": -1}'):
            assert client.post("/push", content=body).status_code == 400
        unknown = client.post("/push", json={"name": "nobody", "seq": 1})
        assert unknown.status_code == 400
        assert "there is no push 'nobody'" in unknown.text
    until_pushed(site, daemon)
    assert is_equal(site, receiver)
    daemon.stop()


def test_a_restored_backup_means_a_full_copy(site: Site, receiver: Receiver) -> None:
    """Its feed has other changes with the same numbers."""
    configure_push(site, to_url(receiver))
    daemon = site.serve()
    until_pushed(site, daemon)
    copy = site.folder / "copy.db"
    assert site.syncd("backup", str(copy)).returncode == 0
    with closing(sqlite3.connect(copy)) as db:
        # Not only the file is another one: it may get the number of the old file.
        assert pushes.mirror_id(db) is None
        assert pushes.load(db, "shop") is not None
    change(site, daemon, 5)
    until_pushed(site, daemon)
    daemon.stop()
    for file in site.mirror.parent.iterdir():
        file.unlink()
    copy.rename(site.mirror)
    taken = len(receiver.taken)
    daemon = site.serve()
    site.until(lambda: len(receiver.taken) > taken)
    until_pushed(site, daemon)
    assert receiver.taken[taken]["begin"]
    assert receiver.taken[taken]["mirror"] != receiver.taken[0]["mirror"]
    assert is_equal(site, receiver)
    daemon.stop()


def test_the_doctor_sends_a_signed_test(site: Site, receiver: Receiver) -> None:
    """It has no changes; a receiver with another secret refuses it."""
    configure_push(site, to_url(receiver), to_url(receiver, "other", secret=WRONG_SECRET))
    found = {line.split("  ")[1]: line for line in site.syncd("doctor").stdout.splitlines()}
    assert receiver.taken == [
        {"source": "default", "mirror": None, "full": False, "test": True, "changes": []}
    ]
    lines = [line for line in found.values() if "signed test" in line and "push" in line]
    assert [line[:4] for line in lines] == ["pass", "fail"]


def test_no_secret_is_shown(site: Site, receiver: Receiver) -> None:
    """Not in the log, the status, the metrics, the mirror, or by a command."""
    receiver.answer = lambda _: 500
    configure_push(
        site,
        to_url(receiver),
        {"name": "second", "command": ["/nonexistent", "token-in-an-argument"]},
    )
    daemon = site.serve()
    site.until(lambda: all(one["error"] for one in daemon.status()["push"]))
    shown = [
        daemon.log.read_text(),
        str(daemon.status()),
        site.syncd("check-config").stdout,
        site.syncd("push", "--json").stdout,
        site.syncd("push", "--dry-run").stdout,
        str(site.bytes_on_disk()),
    ]
    daemon.stop()
    for text in shown:
        assert SECRET.removeprefix("whsec_") not in text
        assert "token-in-" not in text
