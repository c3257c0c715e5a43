"""The output of `syncd setup`: lines for a person, or one JSON document at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins

from syncd.cli import first_delivery
from syncd.cli.doctor import print_finding, send_test_delivery
from syncd.cli.doctor_checks import DELIVERY_CHECK, Finding
from syncd.cli.first_delivery import Waiting
from syncd.cli.program import with_program
from syncd.cli.setup_answers import Answers
from syncd.cli.setup_apply import ShopAccess
from syncd.config import Config
from syncd.control import client
from syncd.errors import SyncdError
from syncd.printing import MAX_LINE_CHARS, ProgressLine, show, show_json, show_whole
from syncd.setup import sites, users
from syncd.setup.files import NewFile
from syncd.setup.places import Place
from syncd.setup.plan import Plan
from syncd.setup.programs import Run
from syncd.setup.service import Started

APP_URL = "https://app.dreamship.com/app/settings/api/"
INTERRUPTED = 130
EVENTS = ("item-variant-availability-updated", "item-variant-added")


class Report:
    """Prints each step at once; with `--json` on stderr, and the document at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._document: dict[str, Any] = {}
        self.progress = ProgressLine()

    def say(self, line: str) -> None:
        """Print a result."""
        show(with_program(line), err=self._as_json, most=MAX_LINE_CHARS)

    def note(self, line: str) -> None:
        """Print progress."""
        show(with_program(line), err=True, most=MAX_LINE_CHARS)

    def finding(self, finding: Finding) -> None:
        """Print the result of a check."""
        self.progress.draw("")
        print_finding(finding, err=self._as_json)

    def whole(self, text: str) -> None:
        """Print a text to copy."""
        if not self._as_json:
            show_whole(text.removesuffix("\n"))

    def add(self, **values: Any) -> None:
        """Add keys to the document."""
        self._document.update(values)

    def made(
        self,
        place: Place,
        answers: Answers,
        plan: Plan,
        *,
        written: Sequence[NewFile],
        access: ShopAccess,
        started: Started | None,
        upstream: str,
    ) -> None:
        """Add what was done, and print the site and the subscription."""
        key_file = None if plan.key_file is None else str(plan.key_file.path)
        server = answers.server
        site = ""
        if server is not None:
            limit = plan.config.webhook.max_body_bytes
            site = sites.site(server, answers.public_url, upstream, limit)
        values = answers.values
        self.add(
            config=str(place.path),
            key_file=key_file,
            keys=len(answers.keys),
            removed=answers.removed,
            written=[str(file.path) for file in written],
            changed={
                change.key: change.after
                for change in plan.changes
                if change.key != "dreamship.api_keys"
            },
            values=None if values is None else values.counts,
            items_read=None if values is None else values.items,
            sellable=list(plan.config.availability.sellable),
            shop_users=access.users,
            added_users=access.added,
            restart=access.restart,
            daemon=started,
            site=site or None,
            subscription_url=answers.public_url or None,
            subscribe_at=APP_URL,
            events=EVENTS,
        )
        if server is not None:
            self.say(f"The site for {server}:")
            self.whole(site)
            self.say(f"  {sites.next_step(server, answers.public_url)}")
        self._subscription(answers.public_url)

    def _subscription(self, url: str) -> None:
        if not url:
            self.say("Dreamship cannot send yet: run `syncd setup` again with --public-url URL.")
            return
        self.say("Subscribe once in the Dreamship app:")
        self.say(f'  1. Open {APP_URL} and choose "manage subscriptions".')
        self.say(f"  2. Select {' and '.join(EVENTS)}.")
        self.say(f"  3. Set the webhook URL to {url}")

    def end(self) -> None:
        """Print the document."""
        if self._as_json:
            show_json(self._document)


def finish(
    report: Report,
    config: Config,
    place: Place,
    answers: Answers,
    run: Run,
    *,
    waits: bool,
    is_served: bool,
    has_credential: bool,
) -> int:
    """Run the checks, wait for the first delivery, and return the exit code.

    Without a daemon, print the command that starts it.
    """
    is_up = is_served or _is_up(config)
    as_user = f"runuser -u {users.USER} -- " if place.is_system else ""
    start_command = f"{as_user}{_program()} serve --config {place.path}"
    report.add(start_command=None if is_up else start_command, first_delivery=None, checks=[])
    if not is_up:
        report.say(f"Start the daemon: {start_command}")
        return 0
    if not is_served:
        report.say("A daemon runs already: restart it, so that it uses the new configuration.")
    user = users.USER if place.is_system else None
    waiting = Waiting(
        config.control.socket,
        lambda: first_delivery.doctor(place.path, user, run, has_credential=has_credential),
        lambda: [send_test_delivery(answers.public_url, answers.keys[0].reveal())],
        report.finding,
        report.progress.draw,
    )
    waits = waits and bool(answers.public_url)
    arrived = _wait(waiting, report) if waits else _check(waiting, config)
    report.add(first_delivery=arrived, checks=to_builtins(waiting.findings))
    if waits and not arrived:
        return INTERRUPTED
    failed = [finding.check for finding in waiting.findings if finding.verdict == "fail"]
    # The site and the subscription are the next steps of a person.
    return 1 if any(check != DELIVERY_CHECK for check in failed) else 0


def _wait(waiting: Waiting, report: Report) -> bool:
    """Return whether the first delivery has arrived before Ctrl-C."""
    report.note("Waiting for the first delivery; Ctrl-C ends the wait, and the daemon goes on.")
    try:
        waiting.wait()
    except KeyboardInterrupt:
        report.note("Everything is set up. The first delivery is still missing:")
        for finding in waiting.findings:
            if finding.verdict != "pass":
                report.note(f"  - {finding.check}: {finding.hint or finding.detail}")
        report.note("  - subscribe in the Dreamship app as above; `syncd status` shows the rest")
        return False
    report.say("The first delivery has arrived.")
    return True


def _check(waiting: Waiting, config: Config) -> bool | None:
    waiting.check()
    try:
        return not client.request_status(config.control.socket).waiting_for_first_delivery
    except SyncdError:
        return None


def _is_up(config: Config) -> bool:
    try:
        client.request_status(config.control.socket)
    except SyncdError:
        return False
    return True


def _program() -> str:
    return sys.argv[0] if sys.argv[0].endswith("/syncd") else f"{sys.executable} -m syncd"
