"""Debian in a container: built once by debootstrap, booted by systemd-nspawn for each use.

Its changes are in memory, and are lost at its end. It uses the network of the host, so it reaches
a simulated Dreamship on loopback. Its pip gets the host's settings (indexes, certificates).
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

SUITE = "bookworm"
# The packages that the documentation names, and those of a bootable system.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "git",
    "python3",
    "python3-venv",
    "systemd",
    "systemd-sysv",
)
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Failed(Exception):
    """A command inside ended badly."""


class Machine:
    """A booted system, known by the process that is number 1 in it."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def path(self, inside: str) -> Path:
        """Return the path outside of a file of the machine."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def run(self, script: str, *, stdin: str = "", within_s: float = 120.0) -> str:
        """Return the output of a shell script, without the last line end; raises Failed."""
        done = subprocess.run(
            self.command("sh", "-euc", script),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=within_s,
        )
        if done.returncode:
            raise Failed(f"{done.returncode} from {script!r}: {done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs a command inside, as root, in a new environment."""
        proxies = [
            f"{name}={value}"
            for name, value in os.environ.items()
            if name.lower() in {"http_proxy", "https_proxy", "no_proxy"}
        ]
        entering = ["nsenter", f"--target={self.leader}", "--all"]
        return [*entering, "env", "-i", f"PATH={_PATH}", "HOME=/root", *proxies, *arguments]

    def show(self, unit: str, *names: str) -> list[str]:
        """Return properties of a unit."""
        output = self.run(
            f"systemctl show {unit} " + " ".join(f"--property={name}" for name in names)
        )
        values = dict(line.split("=", 1) for line in output.splitlines())
        return [values[name] for name in names]


def why_not() -> str | None:
    """Return the missing requirement of this host, or None."""
    if os.geteuid() != 0:
        return "a container needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


@contextlib.contextmanager
def booted(*, shared: Path, log: Path) -> Iterator[Machine]:
    """Give a booted machine that sees one folder of ours at /srv; end it afterwards."""
    pip = _pip_settings()
    command = [
        "systemd-nspawn",
        f"--directory={_tree()}",
        "--volatile=overlay",
        "--register=no",
        "--keep-unit",
        "--boot",
        "--console=pipe",
        f"--bind={shared}:/srv",
        *(f"--bind-ro={path}" for path in _paths_in(pip)),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        machine = Machine(_leader(process, log))
        lines = [f"{name} = {value}" for name, value in pip.items()]
        machine.run("cat >/etc/pip.conf", stdin="\n".join(["[global]", *lines, ""]))
        yield machine
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill every process inside at once: no data of the machine is needed later."""
    for leader in _children(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(leader, signal.SIGKILL)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _leader(process: subprocess.Popen[bytes], log: Path, within_s: float = 30.0) -> int:
    """Return the process that is number 1 inside, once its system runs."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            break
        for leader in _children(process.pid):
            with contextlib.suppress(Failed):
                Machine(leader).run("systemctl is-system-running --wait", within_s=within_s)
                return leader
        time.sleep(0.05)
    raise Failed(f"systemd does not boot in a container here: {log.read_text()[-1000:]}")


def _tree() -> Path:
    """Return a Debian's root folder, made when there is none yet."""
    name = sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"syncd-machine-{SUITE}-{name}"
    # Two test runs at once, or one that was ended while it built: one whole tree all the same.
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir() or folder.is_symlink() or folder.stat().st_uid != 0:
            part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
            try:
                _bootstrap(part)
                part.rename(folder)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    return folder


def _bootstrap(folder: Path) -> None:
    packages = f"--include={','.join(PACKAGES)}"
    command = ["debootstrap", "--variant=minbase", packages, SUITE, str(folder), *_mirror()]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"debootstrap: {done.stdout[-2000:]}{done.stderr[-500:]}")
    folder.chmod(0o755)


def _mirror() -> list[str]:
    """Return where apt takes the suite from here; nothing leaves it to debootstrap."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format=$(CODENAME) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(f"{SUITE} ")]
    return found[:1]


def _pip_settings() -> dict[str, str]:
    """Return the settings of pip on this host, from files and the environment."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    settings = [re.fullmatch(r"(\S+)\.([\w-]+)=(.*)", line) for line in done.stdout.splitlines()]
    found = [match.groups() for match in settings if match is not None]
    # The environment wins.
    found.sort(key=lambda one: one[0] == ":env:")
    return {
        name: str(ast.literal_eval(value)).replace("\n", " ")
        for section, name, value in found
        if section in {"global", "install", ":env:"}
    }


def _paths_in(settings: dict[str, str]) -> list[Path]:
    """Return the files and folders these settings name; an index's files lie beside it."""
    words = [word for value in settings.values() for word in value.split()]
    named = {Path(word) for word in words if word.startswith("/")}
    named |= {Path(word[7:]).parent for word in words if word.startswith("file:///")}
    return sorted(path for path in named if path.exists() and path != Path("/"))
