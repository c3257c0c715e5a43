"""The unit files agree with each other, with the documents and with the program."""

from __future__ import annotations

import re

from documents import ROOT, section

from syncd.child_process import KILL_LIMIT_S
from syncd.config.settings import Webhook
from syncd.daemon.app import LONGEST_STOP_S
from syncd.daemon.systemd import NOTIFY_LIMIT_S
from syncd.http_server.limits import ARRIVAL_S
from syncd.http_server.server import GRACEFUL_S, LONGEST_DRAIN_S
from syncd.logs import DRAIN_LIMIT_S
from syncd.store.connection import BUSY_TIMEOUT_S

UNITS = ROOT / "systemd"
SECTION = "What systemd does for it"


def test_the_template_equals_the_unit() -> None:
    """With the name of the shop in it."""
    text = (UNITS / "syncd.service").read_text()
    for one, many in (
        ("syncd, mirror", "syncd for %i, mirror"),
        ("/etc/syncd/config.toml", "/etc/syncd/%i.toml"),
        ("/etc/syncd/api-keys", "/etc/syncd/%i.api-keys"),
        ("StateDirectory=syncd", "StateDirectory=syncd-%i"),
        ("RuntimeDirectory=syncd", "RuntimeDirectory=syncd-%i"),
        ("/var/lib/syncd", "/var/lib/syncd-%i"),
    ):
        assert one in text
        text = text.replace(one, many)
    assert (UNITS / "syncd@.service").read_text() == text


def setting(unit: str, name: str) -> str:
    """Return the settings of a unit file."""
    (value,) = re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    return str(value)


def test_the_seconds_of_the_unit_are_documented() -> None:
    """The watchdog's time and the pause before a restart."""
    documented = " ".join(section(SECTION).split())
    assert setting("syncd.service", "WatchdogSec") == "120"
    assert "no progress for two minutes" in documented
    assert setting("syncd.service", "RestartSec") == "5"
    assert "is started again after five seconds" in documented


def test_every_stop_fits_into_the_stop_timeout() -> None:
    """The longest request, the servers, a batch that waits for a lock, and the checkpoint."""
    longest_s = LONGEST_DRAIN_S + GRACEFUL_S + 3 * BUSY_TIMEOUT_S
    assert longest_s < LONGEST_STOP_S
    # Also if a part hangs, and if nobody reads the last lines of the log.
    in_all_s = LONGEST_STOP_S + DRAIN_LIMIT_S + NOTIFY_LIMIT_S
    assert in_all_s < int(setting("syncd.service", "TimeoutStopSec"))
    assert LONGEST_STOP_S - longest_s >= KILL_LIMIT_S
    # A request has as long as all of its parts may take.
    assert LONGEST_DRAIN_S > ARRIVAL_S + BUSY_TIMEOUT_S


def test_the_socket_unit_has_the_default_address() -> None:
    """A web server in front uses the same address with the unit and without it."""
    listen = Webhook().listen
    assert setting("syncd.socket", "ListenStream") == f"{listen.host}:{listen.port}"
    assert setting("syncd.socket", "FileDescriptorName") == "webhook"
    # Enabling the service alone works, and does not bring the socket along.
    assert "syncd.socket" not in (UNITS / "syncd.service").read_text()
