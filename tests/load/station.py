"""A folder with a configuration, in which daemons are killed and started again, and a sender."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import json

from load.report import Report

KEY = "ds_load_0123456789abcdef"
# No server answers at this URL, so the mirror has only the data of deliveries.
_CONFIG = """\
[dreamship]
base_url = "http://127.0.0.1:9/v1"
api_keys = ["{key}"]
[webhook]
listen = "127.0.0.1:{port}"
[mirror]
path = "mirror/availability.db"
[admin]
listen = ""
[control]
socket = "control.sock"
[log]
format = "json"
"""
# The listening socket is passed like by a service manager: number 3, for this process.
_PASSED = 'exec 3<&"$0"; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=webhook; exec "$@"'


class Station:
    """Runs one daemon at a time; with `listening`, on a socket that stays open for all of them."""

    def __init__(self, folder: Path, *, listening: socket.socket | None = None) -> None:
        self.folder = folder
        self.listening = listening
        self.port = free_port() if listening is None else int(listening.getsockname()[1])
        self.mirror = folder / "mirror" / "availability.db"
        self.config = folder / "config.toml"
        self.config.write_text(_CONFIG.format(key=KEY, port=self.port))
        self.log = folder / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._log_began = 0

    def start(self) -> None:
        """Start a daemon; it is not ready yet."""
        command, fds = [sys.executable, "-m", "syncd", "serve", "-c", str(self.config)], []
        if self.listening is not None:
            fds = [self.listening.fileno()]
            command = ["bash", "-c", _PASSED, str(fds[0]), *command]
        with self.log.open("ab") as log:
            self._log_began = log.tell()
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=fds,
            )

    def wait_ready(self, within_s: float = 30.0) -> None:
        """Return once the last started daemon is ready."""
        deadline_s = time.monotonic() + within_s
        while not self._is_ready():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended: {self.log.read_text()[-2000:]}")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the daemon is not ready: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill the daemon, like a power failure."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, within_s: float = 45.0) -> float:
        """Stop the daemon like a service manager; it must end with 0. Return the duration."""
        process, self.process = self.process, None
        if process is None:
            return 0.0
        began_s = time.monotonic()
        process.terminate()
        try:
            code = process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        if code != 0:
            raise RuntimeError(f"the daemon ended {code}: {self.log.read_text()[-2000:]}")
        return time.monotonic() - began_s

    def _is_ready(self) -> bool:
        return b'"event": "ready"' in self.log.read_bytes()[self._log_began :]


class Sending:
    """A sender that works in a separate process."""

    def __init__(self, station: Station, *options: str) -> None:
        self._report = station.folder / f"report-{time.monotonic_ns()}.json"
        sender = Path(__file__).with_name("sender.py")
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(sender),
                f"--port={station.port}",
                f"--key={KEY}",
                f"--report={self._report}",
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=_environment(),
        )
        if self._process.stdout is not None:
            self._process.stdout.readline()  # from now on it handles SIGTERM

    def finish(self, within_s: float = 60.0) -> Report:
        """Let the sender finish; return its report."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(within_s)
        return json.decode(self._report.read_bytes(), type=Report)

    def kill(self) -> None:
        """Kill the sender."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def sending(station: Station, *options: str) -> Iterator[Sending]:
    """Run a sender during this context."""
    one = Sending(station, *options)
    try:
        yield one
    finally:
        one.kill()


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _environment() -> dict[str, str]:
    """Return the environment without variables that influence a daemon."""
    foreign = ("SYNCD_", "LISTEN_", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "WATCHDOG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
