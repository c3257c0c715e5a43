"""Shops in other languages: programs that run the files of syncd/examples.

Each runs in a separate process, reads until a file appears, and then prints one line of JSON with
the results. It has the rights of the user that runs it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documents import PACKAGE, ROOT, blocks
from msgspec import Struct, json
from shop_programs import GO, NODE, PHP, PYTHON, RUBY, SHELL

EXAMPLES = PACKAGE / "examples"
# Where Debian puts the source of Go packages.
GO_CODE = os.environ.get("GOPATH", "/usr/share/gocode")
# Where .ci/run installs what comes from npm; TWIN is what Node needs before version 22.13.
NODE_MODULES = ROOT / ".ci" / "node_modules"
TWIN = "@photostructure/sqlite"
# The tests' Python may be in a folder that another user cannot enter.
SYSTEM_PYTHON = shutil.which("python3", path=os.defpath) or sys.executable

LANGUAGES = {"php": "php", "node": "js", "ruby": "ruby", "go": "go", "sqlite3": "sh"}
# The documented uses take the default path of the mirror; these texts set another path.
DEFAULTS = {
    "php": ("new Mirror()", "new Mirror('{path}')"),
    "js": ("new Mirror()", "new Mirror('{path}')"),
    "python": ("Mirror()", "Mirror('{path}')"),
    "ruby": ("Mirror.new", "Mirror.new('{path}')"),
    "go": ("/var/lib/syncd/availability.db", "{path}"),
    "sh": (". ./mirror.sh", "MIRROR='{path}'\n. ./mirror.sh"),
}


def sku_of(variant_id: int) -> str:
    """Return the SKU that the programs use for a variant."""
    return f"Tee's {variant_id}"


class Saw(Struct, frozen=True):
    """The results of one shop: `start` is its first position in the feed, `feed` the later rows."""

    reads: int
    faults: list[Any]
    feed: list[tuple[int, int, str | None, int]]
    start: int


class Shop(Struct, frozen=True):
    """One language: how its example is run, and the program that drives it."""

    name: str
    interpreter: str
    example: str
    driver: str
    arguments: tuple[str, ...] = ()

    def missing(self) -> str:
        """Return why it cannot be run here; empty when it can."""
        if shutil.which(self.interpreter) is None:
            return f"{self.interpreter} is not installed"
        if self.interpreter == "php" and not _runs("php", "-r", "new SQLite3(':memory:');"):
            return "PHP has no SQLite (Debian: php-sqlite3)"
        if self.interpreter == "ruby" and not _runs("ruby", "-rsqlite3", "-e", ""):
            return "Ruby has no SQLite (Debian: ruby-sqlite3)"
        if self.interpreter == "node" and not has_sqlite() and not _node(f"require('{TWIN}')"):
            return f"Node before 22.13 has no SQLite: npm install --prefix .ci {TWIN}"
        if self.interpreter == "go" and not Path(GO_CODE, "src/github.com/mattn").is_dir():
            return "Go has no SQLite (Debian: golang-github-mattn-go-sqlite3-dev)"
        return ""

    def command(self, folder: Path) -> list[str]:
        """Return the command line that drives the example; all of it lies in the folder."""
        copy_examples(folder)
        if self.interpreter == "go":
            return [build_go(folder, self.driver)]
        suffix = {"node": ".mjs", "php": ".php"}.get(self.interpreter, "")
        program = folder / f"{self.name}{suffix}"
        program.write_text(self.driver)
        program.chmod(0o644)
        return [{"sqlite3": "sh"}.get(self.interpreter, self.interpreter), str(program)]


SHOPS = [
    Shop("PHP PDO", "php", "mirror.php", PHP, ("Mirror",)),
    Shop("PHP SQLite3", "php", "mirror_sqlite3.php", PHP, ("Sqlite3Mirror",)),
    Shop("Node", "node", "mirror.mjs", NODE),
    Shop("Python", SYSTEM_PYTHON, "mirror.py", PYTHON),
    Shop("Ruby", "ruby", "mirror.rb", RUBY),
    Shop("Go", "go", "mirror.go", GO),
    Shop("sqlite3", "sqlite3", "mirror.sh", SHELL),
]


def language(shop: Shop) -> str:
    return LANGUAGES.get(shop.interpreter, "python")


def documented(title: str, shop: Shop, mirror: Path) -> str:
    """Return the documented use of one language, for a mirror in another place."""
    (use,) = blocks(title, language(shop))
    before, after = DEFAULTS[language(shop)]
    assert use.count(before) == 1
    use = use.replace(before, after.format(path=mirror))
    if shop.name == "PHP SQLite3":
        use = use.replace("'mirror.php'", "'mirror_sqlite3.php'")
        use = use.replace("new Mirror(", "new Sqlite3Mirror(")
    return use


def command(shop: Shop, source: str, folder: Path) -> list[str]:
    """Return the command that runs a program beside the examples."""
    return Shop(shop.name, shop.interpreter, shop.example, source).command(folder)


def needs(shop: Shop) -> None:
    """Skip a test whose language is not installed."""
    if reason := shop.missing():
        pytest.skip(reason)


def run(
    shop: Shop, source: str, folder: Path, user: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a documented use to its end, in a separate folder."""
    own = folder / "shop"
    return execute(command(shop, source, own), own, user)


def execute(program: list[str], folder: Path, user: int | None) -> subprocess.CompletedProcess[str]:
    """Run a program as a user, who is in a group of the same number."""
    return subprocess.run(
        program,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def python_mirror(path: Path) -> Any:
    """Return the `Mirror` of the Python example, looking at this file."""
    spec = importlib.util.spec_from_file_location("mirror", EXAMPLES / "mirror.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Mirror(path)


def copy_examples(folder: Path) -> None:
    """Copy every example as a shop does; an older Node gets the one change that its file names."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # a language looks through the folder for what it imports
    if (folder / "node_modules").is_symlink():
        return
    for path in EXAMPLES.iterdir():
        if not path.is_file():
            continue
        source = path.read_text()
        if path.name == "mirror.mjs" and not has_sqlite():
            assert f"`npm install {TWIN}`" in source
            assert source.count("from 'node:sqlite'") == 1
            source = source.replace("from 'node:sqlite'", f"from '{TWIN}'")
        (folder / path.name).write_text(source)
        (folder / path.name).chmod(0o644)
    (folder / "node_modules").symlink_to(NODE_MODULES)


def build_go(folder: Path, driver: str) -> str:
    """Build the example with its driver as Debian's packages allow; return the program."""
    built = folder / "go-shop"
    if built.exists():
        return str(built)
    for package, source in (("shop", (EXAMPLES / "mirror.go").read_text()), ("drive", driver)):
        (folder / "go/src" / package).mkdir(parents=True)
        (folder / "go/src" / package / f"{package}.go").write_text(source)
    path = f"{folder / 'go'}{os.pathsep}{GO_CODE}"
    environ = {**os.environ, "GOPATH": path, "GO111MODULE": "off"}
    command = ["go", "build", "-o", str(built), "drive"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built.chmod(0o755)
    return str(built)


class Visit:
    """A shop that reads until `end` is called; as `user`, who is in a group of the same number."""

    def __init__(
        self, shop: Shop, mirror: Path, folder: Path, ids: list[int], user: int | None
    ) -> None:
        self.shop = shop
        self._first = ""
        self._over = folder / f"over {shop.name}"
        self._over.unlink(missing_ok=True)
        arguments = [json.encode(ids).decode(), str(self._over), str(mirror), *shop.arguments]
        if shop.interpreter == "sqlite3":
            arguments += ["".join(f"{one} " for one in ids[:2]), str(ids[2])]
        command = shop.command(folder / "shops")
        self._process = subprocess.Popen(
            [*command, *arguments],
            cwd="/",
            env={
                "HOME": "/nonexistent",
                "LANG": "C.UTF-8",
                "PATH": os.environ["PATH"],
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )

    def wait(self) -> None:
        """Return once it has read for the first time."""
        assert self._process.stdout is not None
        self._first = self._process.stdout.readline()

    def end(self) -> Saw:
        """Let the shop read once more, and return its results."""
        self._over.touch()
        try:
            out, errors = self._process.communicate(timeout=30)
        finally:
            self._process.kill()
        if self._process.returncode != 0:
            return Saw(0, [f"{self.shop.name} failed: {out} {errors}"], [], 0)
        out = (self._first + out).replace("ready\n", "")
        if self.shop.interpreter == "sqlite3":
            return _from_lines(out, errors)
        saw = json.decode(out, type=Saw)
        return Saw(saw.reads, [*saw.faults, *([errors] if errors else [])], saw.feed, saw.start)


def _from_lines(out: str, errors: str) -> Saw:
    lines = [line.split("|") for line in out.splitlines()]
    values = {line[0]: line[1] for line in lines}
    faults = [line[1] for line in lines if line[0] == "fault"] + ([errors] if errors else [])
    feed: list[tuple[int, int, str | None, int]] = [
        (int(seq), int(variant_id), value, int(sellable))
        for kind, seq, _, variant_id, value, sellable in (line for line in lines if len(line) == 6)
        if kind == "row"
    ]
    return Saw(int(values["reads"]), faults, feed, int(values["start"] or 0))


@functools.cache
def has_sqlite() -> bool:
    """Return whether this Node has SQLite built in."""
    return _node("require('node:sqlite')")


def _node(code: str) -> bool:
    return _runs("node", "-e", code)


def _runs(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    environ = {"PATH": os.environ["PATH"], "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    return done.returncode == 0
