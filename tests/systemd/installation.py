"""syncd in a booted machine: its commands and files, deliveries to it, and its releases."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from documents import ROOT
from load.report import Report
from load.sender import FIRST_VARIANT
from msgspec import json as typed

from syncd import __version__
from syncd.core.signature import HEADER, sign
from syncd.demo.fake_dreamship import Api, Event, WebhookSender
from systemd.machine import Machine

KEY = "ds_install_0123456789abcdef"
NEW_KEY = "ds_install_rotated_fedcba98"
MIRROR = "/var/lib/syncd/availability.db"
WEBHOOK = "http://127.0.0.1:8787/webhooks/dreamship"
DROP_IN = "/run/systemd/system/syncd.service.d/test.conf"

ASK = """\
import json, sqlite3, sys

def ask():
    db = sqlite3.connect(sys.argv[1], uri=True, timeout=1)
    return db.execute(sys.argv[2]).fetchall()

try:
    rows = ask()
except sqlite3.OperationalError:
    rows = ask()
print(json.dumps(rows))
"""


class Installation:
    """A machine with syncd, and the simulated Dreamship that this syncd reads."""

    def __init__(self, machine: Machine, api: Api, base_url: str, shared: Path) -> None:
        self.machine = machine
        self.run = machine.run
        self.api = api
        self.catalogue = api.catalogue
        self.base_url = base_url
        self.shared = shared

    def follow(self, *scripts: str) -> str:
        """Run commands of the documentation, in the checkout."""
        return "\n".join(
            self.run(f"cd /root/syncd\n{script}", within_s=600.0) for script in scripts
        )

    def set(self, path: str, **values: object) -> None:
        """Edit a configuration as a person does: replace the line of each key in its place."""
        for key, value in values.items():
            self.run(f"""grep -q '^{key} = ' {path}""")
            self.run(f"""sed -i 's|^{key} = .*|{key} = {json.dumps(value)}|' {path}""")

    def reach_dreamship(self, path: str) -> None:
        """Let it read the simulated Dreamship, with more calls and shorter waits."""
        self.set(
            path,
            base_url=self.base_url,
            calls_per_minute=6000,
            settle="1s",
            missed_grace="1s",
        )

    def until(self, done: Callable[[], object], within_s: float = 30.0) -> None:
        """Return as soon as the condition holds; fail if it does not hold in time."""
        deadline_s = time.monotonic() + within_s
        while not done():
            if time.monotonic() > deadline_s:
                text = self.run("journalctl --no-pager --unit=syncd --lines=30")
                raise AssertionError(f"not within {within_s:g} s; its log:\n{text}")
            time.sleep(0.05)

    @property
    def state(self) -> str:
        """The state of the daemon, from systemd."""
        return "/".join(self.machine.show("syncd", "ActiveState", "SubState"))

    @property
    def main_pid(self) -> int:
        """The id of the daemon's process inside the machine."""
        return int(self.machine.show("syncd", "MainPID")[0])

    def query(self, sql: str, mirror: str = MIRROR) -> list[list[Any]]:
        """Query the mirror as the shop's user, and once more after a refusal, as documented."""
        # Not from outside: SQLite would resolve /proc/…/root to our own root.
        uri = f"file:{mirror}?mode=ro"
        arguments = shlex.join(["python3", "-c", ASK, uri, sql])
        answer: list[list[Any]] = json.loads(self.run(f"runuser -u www-data -- {arguments}"))
        return answer

    def differences(self, mirror: str = MIRROR) -> dict[int, tuple[str | None, str | None]]:
        """Return the variants with another value in the mirror (first) than in the source (second).

        The load delivers variants that the source does not have. Their removal waits for an
        operator, because so many at once look like a mistake.
        """
        rows = self.query("SELECT variant_id, availability FROM availability", mirror)
        mirrored = {one: value for one, value in rows if value is not None and one < FIRST_VARIANT}
        truth = self.catalogue.current_values()
        return {
            variant_id: (mirrored.get(variant_id), truth.get(variant_id))
            for variant_id in sorted(mirrored.keys() | truth.keys())
            if mirrored.get(variant_id) != truth.get(variant_id)
        }

    def until_equal(self, mirror: str = MIRROR) -> None:
        """Return as soon as mirror and source are equal; fail with the differences."""
        try:
            self.until(lambda: not self.differences(mirror))
        except AssertionError as error:
            error.add_note(f"mirror and source: {self.differences(mirror)}")
            raise

    def status(self) -> dict[str, Any]:
        """Return the status document, with the documented command."""
        script = "runuser -u syncd -- syncd status --json || [ $? = 1 ]"
        output: dict[str, Any] = json.loads(self.run(script))
        return output

    def event(self) -> Event:
        """Change a variant in the source; the event is later than every read of this second."""
        truth = self.catalogue.current_values()
        variant_id = next(iter(truth))
        value = "out_of_stock" if truth[variant_id] == "in_stock" else "in_stock"
        event = self.catalogue.set_availability(variant_id, value)
        return replace(event, at=event.at + timedelta(seconds=1.3))

    def post(self, event: Event, *, key: str = KEY, over: str | None = None) -> httpx.Response:
        """Deliver a signed event: `over` a unix socket of the machine, else to the webhook."""
        body = WebhookSender(self.catalogue, "", (key,)).body(event)
        path = None if over is None else str(self.machine.path(over))
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=30) as client:
            headers = {HEADER: sign(body, (key,)), "Content-Type": "application/json"}
            return client.post(WEBHOOK, content=body, headers=headers)

    def deliver(self, *, key: str = KEY, over: str | None = None) -> None:
        """Deliver a change, which must be answered 200."""
        answer = self.post(self.event(), key=key, over=over)
        assert answer.status_code == 200, answer.text

    @contextlib.contextmanager
    def loaded(self) -> Iterator[list[Report]]:
        """Send deliveries until the block ends; then the list has the report of the sender."""
        path = self.shared / f"load-{time.monotonic_ns()}.json"
        # Another seed for each sender, or its deliveries would be copies of those sent before.
        seed = len([*self.shared.glob("load-*.json")])
        options = [f"--key={KEY}", f"--report={path}", f"--seed={seed}", "--per-second=400"]
        sender_py = str(ROOT / "tests" / "load" / "sender.py")
        command = [sys.executable, sender_py, "--port=8787", *options]
        sender = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        done: list[Report] = []
        try:
            yield done
            sender.send_signal(signal.SIGTERM)
            assert sender.wait(60) == 0
            done.append(typed.decode(path.read_bytes(), type=Report))
        finally:
            sender.kill()
            sender.wait()

    def require_all(self, report: Report) -> None:
        """Require that each delivery got 200 at its first try, and is stored exactly once."""
        assert report.statuses.keys() == {"200"}, report.statuses
        assert (report.refused, report.reset) == (0, 0), (report.refused, report.reset)
        # A kept connection may be closed just while a request is on its way; see load.report.
        assert report.raced <= 1, report.raced
        stored = [row[0] for row in self.query("SELECT event_id FROM deliveries")]
        lost = {one.event_id for one in report.accepted} - set(stored)
        assert not lost, lost
        assert len(stored) == len(set(stored)), len(stored)

    def shop_report(self) -> dict[str, Any]:
        """Return the report of the shop that queries all the time."""
        output: dict[str, Any] = json.loads(self.machine.path("/tmp/shop.json").read_text())
        return output

    def has_restarted(self, before: int) -> bool:
        """Return whether systemd has started the daemon again since, and it is ready."""
        restarts, state = self.machine.show("syncd", "NRestarts", "SubState")
        return int(restarts) > before and state == "running"

    @contextlib.contextmanager
    def with_settings(self, *lines: str) -> Iterator[None]:
        """Run the unit with a drop-in."""
        text = "\n".join(["[Service]", *lines, ""])
        self.run(f"mkdir -p $(dirname {DROP_IN}) && cat >{DROP_IN}", stdin=text)
        self.run("systemctl daemon-reload && systemctl restart syncd")
        try:
            yield
        finally:
            self.run(f"rm {DROP_IN} && systemctl daemon-reload && systemctl restart syncd")


def publish(origin: Path) -> None:
    """Make a repository of the present files of this one, changed and new ones too."""
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost"]
    listed = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (origin / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, origin / name)
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "As it is here"]):
        subprocess.run([*git, *command], cwd=origin, check=True)


def release(origin: Path, version: str) -> None:
    """Publish the next version."""
    module = origin / "syncd" / "__init__.py"
    module.write_text(module.read_text().replace(f'"{__version__}"', f'"{version}"'))
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "commit", "-qam", "The next one"], cwd=origin, check=True)
