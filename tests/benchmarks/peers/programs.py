"""Finds the programs and packages of the peers on this machine, and starts the peers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import json

from benchmarks.deliveries import KEY
from benchmarks.peers.database import FOLDER as SQL
from benchmarks.peers.database import STATEMENTS
from benchmarks.processes import WITHIN_S, Running, end

FOLDER = Path(__file__).resolve().parent
PATH = "/webhooks/dreamship"
# The environment variable, and the option of run.py, that name the folder of the npm packages.
NPM_VARIABLE = "SYNCD_BENCHMARK_NPM"
# Where Debian puts the source of Go packages.
GO_CODE = Path("/usr/share/gocode")

LABELS = {
    "node": "Node, node:http, better-sqlite3",
    "fastify": "Node, Fastify, better-sqlite3",
    "go": "Go, net/http, mattn/go-sqlite3",
    "fastapi": "Python, FastAPI, sqlite3",
    "webhook": "webhook, a script with sqlite3",
    "shared": "the same rows in shared commits, no rules",
}


def missing(name: str, npm: Path | None) -> str | None:
    """Return why a peer cannot run on this machine, or None if it can."""
    match name:
        case "node":
            return _missing_node(npm, "better-sqlite3")
        case "fastify":
            return _missing_node(npm, "better-sqlite3", "fastify")
        case "fastapi":
            is_there = importlib.util.find_spec("fastapi") is not None
            return None if is_there else "the Python package fastapi is missing (extra `bench`)"
        case "shared":
            return None
        case "go":
            if not (GO_CODE / "src/github.com/mattn/go-sqlite3").is_dir():
                return "Debian's package golang-github-mattn-go-sqlite3-dev is missing"
            return _missing_program("go", "golang-go") or _missing_program("gcc", "gcc")
        case "webhook":
            return _missing_program("webhook", "webhook") or _missing_program("sqlite3", "sqlite3")
        case _:
            raise ValueError(name)


def _missing_program(name: str, package: str) -> str | None:
    return None if shutil.which(name) else f"Debian's package {package} is missing"


def _missing_node(npm: Path | None, *packages: str) -> str | None:
    if shutil.which("node") is None:
        return "Node is missing"
    if npm is None:
        return f"neither --npm nor ${NPM_VARIABLE} names the folder of the npm packages"
    absent = [name for name in packages if not (npm / "node_modules" / name).is_dir()]
    if absent:
        return f"the npm package {' and '.join(absent)} is missing in {npm}"
    # A package of another Node crashes, and a package without its compiled part does not load.
    loads = ";".join(f"require('{name}')" for name in packages)
    opens = "new (require('better-sqlite3'))(':memory:')"
    done = subprocess.run(
        ["node", "-e", f"{loads};{opens}"],
        env=_node_environment(npm),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or ["it crashes"]
        return f"npm package better-sqlite3 does not load: {lines[0].strip()}"
    return None


def _node_environment(npm: Path) -> dict[str, str]:
    return {**os.environ, "NODE_PATH": str(npm / "node_modules"), "NODE_ENV": "production"}


class Peers:
    """The peers that this machine can run, ready to be started."""

    def __init__(self, folder: Path, npm: Path | None) -> None:
        """Build and write in `folder` everything that a peer needs before its first start."""
        self._folder = folder
        self._npm = npm
        self.skipped = {
            name: reason for name in LABELS if (reason := missing(name, npm)) is not None
        }
        self.names = [name for name in LABELS if name not in self.skipped]
        folder.mkdir()
        if "go" in self.names:
            self._build_go()
        if "webhook" in self.names:
            script = (FOLDER / "record.sql").read_text()
            (folder / "record.sql").write_text(script.format_map(STATEMENTS))

    def _build_go(self) -> None:
        source = self._folder / "go/src/receiver"
        source.mkdir(parents=True)
        shutil.copy(FOLDER / "receiver.go", source)
        subprocess.run(
            ["go", "build", "-o", str(self._folder / "receiver"), "receiver"],
            env={
                **os.environ,
                "GOPATH": f"{self._folder / 'go'}{os.pathsep}{GO_CODE}",
                "GO111MODULE": "off",
            },
            check=True,
        )

    @contextlib.contextmanager
    def serving(self, name: str, database: Path) -> Iterator[Running]:
        """Give a peer that takes deliveries for a database, and end it."""
        log = database.with_name(f"{name}.log")
        port = None
        match name:
            case "node":
                command = ["node", str(FOLDER / "node_http.cjs"), str(database)]
            case "fastify":
                command = ["node", str(FOLDER / "fastify_app.cjs"), str(database)]
            case "fastapi":
                command = [sys.executable, str(FOLDER / "fastapi_app.py"), str(database)]
            case "shared":
                command = [sys.executable, str(FOLDER / "shared_commit.py"), str(database)]
            case "go":
                command = [str(self._folder / "receiver"), str(database), str(SQL)]
            case _:
                port = _free_port()
                command = self._webhook(database, port)
        environ = os.environ if self._npm is None else _node_environment(self._npm)
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                env={**environ, "DREAMSHIP_API_KEY": KEY},
                stdout=stderr if port else subprocess.PIPE,
                stderr=stderr,
            )
        try:
            if port:
                _wait_until_open(process, port)
                address = f"http://127.0.0.1:{port}"
            else:
                address = _first_line(process)
            yield Running(f"{address}{PATH}", process, log)
        finally:
            end(process)

    def _webhook(self, database: Path, port: int) -> list[str]:
        hooks = database.with_name("hooks.json")
        hooks.write_bytes(json.encode([_hook(database, self._folder / "record.sql")]))
        return [
            *("webhook", "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port)),
            *("-urlprefix", PATH.split("/")[1]),
        ]


def _hook(database: Path, script: Path) -> dict[str, object]:
    """Return the configuration of webhook: it answers 200 only after the script has ended well."""
    return {
        "id": PATH.split("/")[2],
        "execute-command": str(FOLDER / "record.sh"),
        "command-working-directory": str(database.parent),
        "pass-arguments-to-command": [
            {"source": "string", "name": str(database)},
            {"source": "string", "name": str(script)},
        ],
        "pass-file-to-command": [{"source": "raw-request-body", "envname": "BODY_FILE"}],
        "include-command-output-in-response": True,
        "response-headers": [{"name": "Content-Type", "value": "application/json"}],
        # Only inside of `or` a wrong signature is answered with this code, otherwise with 500.
        "trigger-signature-soft-failures": True,
        "trigger-rule-mismatch-http-response-code": 401,
        "trigger-rule": {
            "or": [
                {
                    "match": {
                        "type": "payload-hmac-sha256",
                        "secret": KEY,
                        "parameter": {"source": "header", "name": "X-Dreamship-Signature"},
                    }
                }
            ]
        },
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    if not (line := process.stdout.readline().decode().strip()):
        raise RuntimeError("the peer did not start; its log lies beside its database")
    return line


def _wait_until_open(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise RuntimeError("the peer did not start; its log lies beside its database")
