"""Waits for the first delivery, while the checks of `syncd doctor` run beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from msgspec import DecodeError, Struct, json

from syncd.cli.doctor_checks import DELIVERY_CHECK, Finding
from syncd.control import client
from syncd.core.status_document import StatusDocument
from syncd.errors import SyncdError
from syncd.setup.programs import Run

_POLL_S = 1.0
# Test deliveries cost no call to Dreamship, so only they are repeated.
_RETRY_S = 15.0


class _Checks(Struct, frozen=True):
    checks: list[Finding]


# Where systemd shows the credentials of the running daemon to root.
CREDENTIALS = "CREDENTIALS_DIRECTORY=/run/credentials/syncd.service"


def doctor(config: Path, user: str | None, run: Run, *, has_credential: bool) -> list[Finding]:
    """Return the findings of `syncd doctor`, as the daemon's user; none if it cannot run.

    Only root can read a credential.
    """
    as_user = ["runuser", "-u", user, "--"] if user else []
    as_user = ["env", CREDENTIALS] if has_credential else as_user
    program = [sys.executable, "-P", "-m", "syncd"]
    done = run([*as_user, *program, "doctor", "--json", "--config", str(config)])
    try:
        return json.decode(done.output, type=_Checks).checks
    except DecodeError:
        return []


class Waiting:
    """The wait for one daemon.

    `check` runs all checks, `check_again` only the delivery from outside. `draw` replaces the line
    of the progress.
    """

    def __init__(
        self,
        socket: Path,
        check: Callable[[], list[Finding]],
        check_again: Callable[[], list[Finding]],
        show: Callable[[Finding], None],
        draw: Callable[[str], None],
    ) -> None:
        self._socket = socket
        self._check = check
        self._check_again = check_again
        self._show = show
        self._draw = draw
        self._shown: dict[str, Finding] = {}
        self._next_at_s = 0.0

    @property
    def findings(self) -> Sequence[Finding]:
        """The last finding of each check."""
        return [*self._shown.values()]

    def check(self) -> None:
        """Run all checks once."""
        self._report(self._check())

    def wait(self) -> None:
        """Return when the first delivery has arrived; checks that still run are left alone."""
        pool = ThreadPoolExecutor(1)
        running: Future[list[Finding]] | None = None
        try:
            while True:
                running = self._take(running, pool)
                try:
                    status = client.request_status(self._socket)
                except SyncdError as error:
                    self._draw(f"Waiting for the first delivery; {error.message}")
                else:
                    if not status.waiting_for_first_delivery:
                        return
                    self._draw(f"Waiting for the first delivery{_progress(status)}")
                time.sleep(_POLL_S)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self._draw("")

    def _take(
        self, running: Future[list[Finding]] | None, pool: ThreadPoolExecutor
    ) -> Future[list[Finding]] | None:
        """Show the results of checks that have ended, and start the next ones if they are due."""
        if running is not None and running.done():
            self._report(running.result())
            running = None
        if running is not None or time.monotonic() < self._next_at_s:
            return running
        self._next_at_s = time.monotonic() + _RETRY_S
        if not self._shown:
            return pool.submit(self._check)
        outside = self._shown.get(DELIVERY_CHECK)
        is_well = outside is not None and outside.verdict == "pass"
        return None if is_well else pool.submit(self._check_again)

    def _report(self, findings: Sequence[Finding]) -> None:
        """Show each finding that is new or has changed."""
        for finding in findings:
            if self._shown.get(finding.check) != finding:
                self._shown[finding.check] = finding
                self._show(finding)


def _progress(status: StatusDocument) -> str:
    sweep = status.sweep
    if not sweep.running:
        return f"; {status.mirror.variants:,} variants in the mirror"
    left = (
        "" if sweep.eta_seconds is None else f", about {max(1, sweep.eta_seconds // 60)} min left"
    )
    return f"; {sweep.checked} of {sweep.total or '?'} items read{left}"
