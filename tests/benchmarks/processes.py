"""The measured processes, and the kernel's figures of their use of the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from msgspec import Struct, json

from benchmarks import mirrors
from benchmarks.deliveries import KEY
from benchmarks.posting import Posted
from syncd.config import Config, load

FOLDER = Path(__file__).resolve().parent
WITHIN_S = 120.0
_NOWHERE = "http://127.0.0.1:9/v1"


class Running(Struct, frozen=True):
    """A process that takes deliveries at `url`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    admin_url: str = ""

    @property
    def peak_mb(self) -> float:
        """The largest memory of the process until now."""
        return self._status_kb("VmHWM") / 1024

    @property
    def memory_mb(self) -> float:
        """The present memory of the process."""
        return self._status_kb("VmRSS") / 1024

    @property
    def cpu_s(self) -> float:
        """The processor time that it and its children that have ended have used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    @property
    def written_bytes(self) -> int:
        """The bytes that it and its children that have ended have written to disk, logs included.

        The kernel counts a page when the process makes it dirty, and nothing on a file system in
        memory.
        """
        lines = Path(f"/proc/{self.process.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["write_bytes"])

    @property
    def written_mb(self) -> float:
        """The same in megabytes."""
        return self.written_bytes / 2**20

    def wait_for_children(self) -> None:
        """Wait until no process that it has started runs any more."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        deadline = time.monotonic() + WITHIN_S
        while any((task / "children").read_text().strip() for task in tasks.iterdir()):
            if time.monotonic() > deadline:
                raise RuntimeError("its children do not end")
            time.sleep(0.05)

    def metric(self, name: str) -> float:
        """Return a metric of the daemon that has no labels."""
        page = httpx.get(f"{self.admin_url}/metrics", trust_env=False).text
        return float(dict(line.rsplit(" ", 1) for line in page.splitlines())[name])

    def _status_kb(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(dict(line.split(":\t") for line in lines if ":\t" in line)[name].split()[0])


class Place:
    """A folder with a configuration and a mirror."""

    def __init__(
        self,
        folder: Path,
        *,
        base_url: str = _NOWHERE,
        calls_per_minute: int = 6000,
        admin: str = "",
        more: str = "",
        **reconcile: str,
    ) -> None:
        """Write the configuration; `more` has further sections, as TOML."""
        self.folder = folder
        self.mirror = folder / "mirror" / "availability.db"
        self.socket = folder / "control.sock"
        self.path = folder / "config.toml"
        sections: dict[str, dict[str, object]] = {
            "dreamship": {
                "base_url": base_url,
                "api_keys": [KEY],
                "calls_per_minute": calls_per_minute,
            },
            "webhook": {"listen": "127.0.0.1:0"},
            "mirror": {"path": str(self.mirror)},
            # Benchmarks know each call.
            "reconcile": {"background_calls_per_minute": 0, **reconcile},
            "admin": {"listen": admin},
            "control": {"socket": str(self.socket)},
        }
        lines: list[str] = []
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{k} = {json.encode(v).decode()}" for k, v in values.items())]
        self.path.write_text("\n".join([*lines, more]))

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return load(self.path, os.environ)

    def fill(self, variants: int) -> None:
        """Make a mirror of so many variants."""
        mirrors.fill(self.mirror, variants, self.config)

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of syncd."""
        return [sys.executable, "-m", "syncd", *arguments, "--config", str(self.path)]

    @contextlib.contextmanager
    def daemon(self) -> Iterator[Running]:
        """Give a daemon that is ready; ends it as a service manager does."""
        log = self.folder / f"serve-{time.monotonic_ns()}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(self.command("serve"), stdout=stderr, stderr=stderr)
        try:
            url, admin_url = self._wait_ready(process, log)
            yield Running(url, process, log, admin_url)
        finally:
            end(process)

    @contextlib.contextmanager
    def other(self, kind: str) -> Iterator[Running]:
        """Give one of the servers of servers.py."""
        log = self.folder / f"{kind}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, str(FOLDER / "servers.py"), kind],
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        try:
            if process.stdout is None:
                raise RuntimeError("it has a pipe")
            address = process.stdout.readline().decode().strip()
            yield Running(f"{address}/webhooks/dreamship", process, log)
        finally:
            end(process)

    def _wait_ready(self, process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
        """Return the URLs of the webhook and of the admin listener."""
        deadline = time.monotonic() + WITHIN_S
        while process.poll() is None and time.monotonic() < deadline:
            lines = [json.decode(line) for line in log.read_bytes().split(b"\n")[:-1]]
            ready = [line for line in lines if line.get("event") == "ready"]
            if ready:
                at = {line["listener"]: line["address"] for line in lines if "listener" in line}
                return str(at["webhook"] + ready[0]["webhook"]), str(at.get("admin", ""))
            time.sleep(0.005)
        raise RuntimeError(f"the daemon did not start: {log.read_text()}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process as a service manager does, or else as a power failure does."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    finally:
        process.kill()
        process.wait()


class Load(Struct, frozen=True):
    """The results of wrk."""

    requests: int
    seconds: float
    not_200: int
    broken: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def accepted(self) -> int:
        """The number of answers with 200."""
        return self.requests - self.not_200

    @property
    def per_second(self) -> float:
        """The number of answers with 200 in a second."""
        return self.accepted / self.seconds


def wrk(url: str, file: Path, *, connections: int, seconds: int) -> Load:
    """Load a URL with the deliveries of a file for so many seconds."""
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--timeout", "10s"),
            *("--script", str(FOLDER / "wrk.lua"), url, "--", str(file)),
        ],
        capture_output=True,
        check=True,
    )
    return json.decode(done.stdout.splitlines()[-1], type=Load)


@contextlib.contextmanager
def posting(
    url: str, file: Path, *, connections: int, seconds: float = 0
) -> Iterator[Callable[[], Posted]]:
    """Post the deliveries of a file meanwhile; the function given waits for the end."""
    arguments = [url, str(file), str(connections), str(seconds)]
    with subprocess.Popen(
        [sys.executable, str(FOLDER / "posting.py"), *arguments], stdout=subprocess.PIPE
    ) as process:
        try:
            yield lambda: json.decode(process.communicate()[0], type=Posted)
        finally:
            process.kill()


def post(url: str, file: Path, *, connections: int, seconds: float = 0) -> Posted:
    """Post the deliveries of a file, all of them or for so many seconds."""
    with posting(url, file, connections=connections, seconds=seconds) as wait:
        return wait()
