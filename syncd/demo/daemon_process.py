"""A real daemon in its own process, with a real configuration in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from msgspec import DecodeError, json

from syncd.core.model import JsonObject
from syncd.errors import SyncdError

_CONFIG = """\
# The configuration of `syncd demo`: a simulated Dreamship, and short times.
[dreamship]
base_url = "{base_url}"
api_keys = ["{key}"]
calls_per_minute = {calls_per_minute}
timeout_seconds = 5

[webhook]
listen = "127.0.0.1:{webhook_port}"

[mirror]
path = "availability.db"

[reconcile]
background_calls_per_minute = {background_calls_per_minute}
settle = "1s"
missed_grace = "5s"

[retention]
deliveries = "1d"
changes = "1d"

[admin]
listen = "127.0.0.1:{page_port}"

[control]
socket = {socket}

[log]
format = "json"
"""
_START_S = 30.0
_STOP_S = 10.0


class Addresses(NamedTuple):
    """The addresses on which a daemon listens, named by its log."""

    webhook: str
    status_page: str


class DaemonProcess:
    """`syncd serve` in `folder`, started and stopped as a service manager does it."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.config = folder / "config.toml"
        self.mirror = folder / "availability.db"
        self.socket = socket
        self._log = folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, more: str = "", **values: object) -> None:
        """Write the configuration, with `more` sections.

        Only its owner can read it, because it contains the key.
        """
        self.config.touch(mode=0o600)
        folder = self.config.parent
        socket = self.socket.name if self.socket.parent == folder else str(self.socket)
        text = _CONFIG.format(socket=json.encode(socket).decode(), **values)
        self.config.write_text(text + more)

    async def start(self) -> Addresses:
        """Start the daemon; return its addresses, which its log names."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it continues to run
                _syncd("serve", "--config", str(self.config)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=_environment(),
                # Ctrl-C ends only the demo, and then the demo ends the daemon.
                start_new_session=True,
            )
        for _ in range(int(_START_S / 0.05)):
            logged = self._logged()
            if "ready" in logged:
                return Addresses(
                    str(logged["webhook"].get("address")) + str(logged["ready"].get("webhook")),
                    f"{logged['admin'].get('address')}/",
                )
            if self._process.poll() is not None:
                break
            await asyncio.sleep(0.05)
        raise SyncdError(f"the daemon did not start: {self._reason()}", hint=f"see {self._log}")

    def check(self) -> None:
        """Raise SyncdError if the daemon has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise SyncdError("the daemon ended by itself", hint=f"see {self._log}")

    async def command(self, *arguments: str) -> tuple[int, JsonObject]:
        """Run another command; return its exit code and the JSON document that it printed."""
        process = await asyncio.create_subprocess_exec(
            *_syncd(*arguments, "--json", "--config", str(self.config)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        try:
            out, err = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        try:
            return process.returncode or 0, json.decode(out, type=JsonObject)
        except DecodeError:
            raise SyncdError(
                f"syncd {' '.join(arguments)} failed: {err.decode(errors='replace').strip()}"
            ) from None

    async def stop(self) -> None:
        """End the daemon with SIGTERM, or kill it if that takes too long or is interrupted."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            for _ in range(int(_STOP_S / 0.02)):
                if process.poll() is not None:
                    return
                await asyncio.sleep(0.02)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _logged(self) -> dict[str, JsonObject]:
        """Return the first line of the log about each listener, and about `ready`."""
        found: dict[str, JsonObject] = {}
        for line in self._log.read_bytes().splitlines():
            try:
                logged = json.decode(line, type=JsonObject)
            except DecodeError:
                continue
            if logged.get("event") in {"listening", "ready"}:
                found.setdefault(str(logged.get("listener", "ready")), logged)
        return found

    def _reason(self) -> str:
        """Return the errors that the daemon wrote for a person, else the end of its log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        return "; ".join(errors) or " ".join(lines[-2:]) or "its log is empty"


# The kernel ends the process when its parent has ended: no daemon outlives a demo that is killed.
_UNTIL_PARENT_ENDS = """\
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() == int(sys.argv[1]):  # else the parent has ended before that line
    os.execv(sys.argv[2], sys.argv[2:])
"""


def _syncd(*arguments: str) -> tuple[str, ...]:
    """Return the command line of a syncd process that does not outlive this one."""
    python = sys.executable
    own = (python, "-m", "syncd", *arguments)
    return (python, "-c", _UNTIL_PARENT_ENDS, str(os.getpid()), *own)


def _environment() -> dict[str, str]:
    """Return the environment without variables that would change the daemon's configuration."""
    prefixes = ("SYNCD_", "LISTEN_", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "WATCHDOG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    # A heartbeat every second instead of every 20, as for a watchdog of two seconds.
    return kept | {"WATCHDOG_USEC": "2000000"}
