"""A folder with a configuration, daemons that are killed and started again in it, and a sender."""

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
# Nobody serves Dreamship's API there: the mirror has nothing but what deliveries say.
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
# The listening socket is handed over as a service manager does it: number 3, for this process.
_HANDED = 'exec 3<&"$0"; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=webhook; exec "$@"'


class Station:
    """Runs one daemon at a time; with `held`, on a listening socket that outlives all of them."""

    def __init__(self, folder: Path, *, held: socket.socket | None = None) -> None:
        self.folder = folder
        self.held = held
        self.port = free_port() if held is None else int(held.getsockname()[1])
        self.mirror = folder / "mirror" / "availability.db"
        self.config = folder / "config.toml"
        self.config.write_text(_CONFIG.format(key=KEY, port=self.port))
        self.log = folder / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._log_began = 0

    def start(self) -> None:
        """Start a daemon; it is not ready yet."""
        command, fds = [sys.executable, "-m", "syncd", "serve", "-c", str(self.config)], []
        if self.held is not None:
            fds = [self.held.fileno()]
            command = ["bash", "-c", _HANDED, str(fds[0]), *command]
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
        """Return once the daemon started last says that it is ready."""
        deadline_s = time.monotonic() + within_s
        while not self._is_ready():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended: {self.log.read_text()[-2000:]}")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the daemon is not ready: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End the daemon as a power failure does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, within_s: float = 45.0) -> float:
        """End the daemon as a service manager does; it must end well. Return how long it took."""
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
    """A sender at work, in a process of its own."""

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
            self._process.stdout.readline()  # from now on it may be told to finish

    def finish(self, within_s: float = 60.0) -> Report:
        """Have it send what is left; return what it did."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(within_s)
        return json.decode(self._report.read_bytes(), type=Report)

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def sending(station: Station, *options: str) -> Iterator[Sending]:
    """Have a sender at work for as long as this lasts."""
    one = Sending(station, *options)
    try:
        yield one
    finally:
        one.kill()


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _environment() -> dict[str, str]:
    """Return our environment without what would change what a daemon does."""
    foreign = ("SYNCD_", "LISTEN_", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "WATCHDOG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
