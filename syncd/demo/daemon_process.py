"""A real daemon in its own process, with a real configuration in a temporary folder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

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
listen = "127.0.0.1:0"

[mirror]
path = "availability.db"

[reconcile]
background_calls_per_minute = {background_calls_per_minute}
settle = "1s"
missed_grace = "5s"

[admin]
listen = "127.0.0.1:0"

[control]
socket = "control.sock"

[log]
format = "json"
"""
_START_S = 30.0
_STOP_S = 30.0


class DaemonProcess:
    """`syncd serve` in `folder`, started and stopped as a service manager does it."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"
        self.mirror = folder / "availability.db"
        self._log = folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    def configure(
        self, *, base_url: str, key: str, calls_per_minute: int, background_calls_per_minute: int
    ) -> None:
        """Write the configuration; only its owner can read it, because it contains the key."""
        text = _CONFIG.format(
            base_url=base_url,
            key=key,
            calls_per_minute=calls_per_minute,
            background_calls_per_minute=background_calls_per_minute,
        )
        self.config.touch(mode=0o600)
        self.config.write_text(text)

    async def start(self) -> str:
        """Start the daemon; return its webhook URL, which its log names."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it continues to run
                [*_SYNCD, "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=_environment(),
                # Ctrl-C ends only the demo, and then the demo ends the daemon.
                start_new_session=True,
            )
        for _ in range(int(_START_S / 0.05)):
            address = self._logged("listening", "address")
            path = self._logged("ready", "webhook")
            if address and path:
                return address + path
            if self._process.poll() is not None:
                break
            await asyncio.sleep(0.05)
        tail = self._log.read_text(errors="replace").strip().splitlines()[-2:]
        raise SyncdError(f"the daemon did not start: {' '.join(tail)}", hint=f"see {self._log}")

    def check(self) -> None:
        """Raise SyncdError if the daemon has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise SyncdError("the daemon ended by itself", hint=f"see {self._log}")

    async def command(self, *arguments: str) -> tuple[int, JsonObject]:
        """Run another command; return its exit code and the JSON document that it printed."""
        process = await asyncio.create_subprocess_exec(
            *_SYNCD,
            *arguments,
            "--json",
            "--config",
            str(self.config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        out, err = await process.communicate()
        try:
            return process.returncode or 0, json.decode(out, type=JsonObject)
        except DecodeError:
            raise SyncdError(
                f"syncd {' '.join(arguments)} failed: {err.decode(errors='replace').strip()}"
            ) from None

    async def stop(self) -> None:
        """End the daemon with SIGTERM, or kill it if that takes too long."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _logged(self, event: str, key: str) -> str | None:
        """Return a value of the first line of the log with this event, or None."""
        for line in self._log.read_bytes().splitlines():
            try:
                logged = json.decode(line, type=JsonObject)
            except DecodeError:
                continue
            if logged.get("event") == event and logged.get("listener", "webhook") == "webhook":
                return str(logged.get(key, "")) or None
        return None


_SYNCD = (sys.executable, "-m", "syncd")


def _environment() -> dict[str, str]:
    """Return the environment without variables that would change the daemon's configuration."""
    prefixes = ("SYNCD_", "LISTEN_", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "WATCHDOG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    # A heartbeat every second instead of every 20, as for a watchdog of two seconds.
    return kept | {"WATCHDOG_USEC": "2000000"}
