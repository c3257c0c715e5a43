"""Shops in other languages: the files of syncd/examples, driven.

Each runs as a process of its own, reads until a file appears, and then tells in one line of JSON
what it saw. What it may do it is given by the user it runs as.
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

from documents import PACKAGE, ROOT
from msgspec import Struct, json

EXAMPLES = PACKAGE / "examples"
# Where Debian puts the source of Go packages.
GO_CODE = os.environ.get("GOPATH", "/usr/share/gocode")
# Where .ci/run installs what comes from npm; TWIN is what Node needs before version 22.13.
NODE_MODULES = ROOT / ".ci" / "node_modules"
TWIN = "@photostructure/sqlite"
# Ours may live in a folder that another user cannot enter.
SYSTEM_PYTHON = shutil.which("python3", path=os.defpath) or sys.executable

PHP = r"""<?php
require_once __DIR__ . '/mirror_sqlite3.php';

function drive(array $ids, string $over, string $path, string $kind): void
{
    [$reads, $faults, $feed] = [0, [], []];
    $mirror = new $kind($path);
    [$start] = $mirror->startOver();
    [$seq, $at] = [$start['seq'], $start['recorded_at']];
    do {
        $isLast = file_exists($over);
        if ($reads++ % 2) {
            $mirror = new $kind($path);
        }
        try {
            $known = $mirror->variant($ids[0])['sellable'] ?? null;
            $sold = $mirror->maySell(...$ids);
            sort($sold);
            if ($known !== 1 || $sold !== array_slice($ids, 0, 2)) {
                $faults[] = [$known, $sold];
            }
            foreach ($mirror->changes($seq, $at) ?? throw new Exception('not kept') as $row) {
                [$seq, $at] = [$row['seq'], $row['recorded_at']];
                $feed[] = [$seq, $row['variant_id'], $row['availability'], $row['sellable']];
            }
        } catch (Exception $fault) {
            $faults[] = $fault->getMessage();
        }
        if ($reads === 1) {
            echo "ready\n";
        }
        usleep(10000);
    } while (!$isLast);
    echo json_encode(compact('reads', 'faults', 'feed') + ['start' => $start['seq']]);
}
drive(json_decode($argv[1]), $argv[2], $argv[3], $argv[4]);
"""

NODE = r"""
import { existsSync, writeSync } from 'node:fs'
import { Mirror } from './mirror.mjs'
let [reads, faults, feed] = [0, [], []]
const [ids, over, path] = [JSON.parse(process.argv[2]), process.argv[3], process.argv[4]]
const nap = new Int32Array(new SharedArrayBuffer(4))
let mirror = new Mirror(path)
const [start] = mirror.startOver()
let { seq, recorded_at: at } = start
for (let isLast = false; !isLast;) {
  isLast = existsSync(over)
  if (reads++ % 2) mirror = new Mirror(path)
  try {
    const known = mirror.variant(ids[0])?.sellable
    const sold = [...mirror.maySell(...ids)].sort((a, b) => a - b)
    if (known !== 1 || String(sold) !== String(ids.slice(0, 2))) faults.push([known, sold])
    for (const row of mirror.changes(seq, at)) {
      [seq, at] = [row.seq, row.recorded_at]
      feed.push([seq, row.variant_id, row.availability, row.sellable])
    }
  } catch (fault) {
    faults.push(String(fault))
  }
  if (reads === 1) writeSync(1, 'ready\n')
  Atomics.wait(nap, 0, 0, 10)
}
console.log(JSON.stringify({ reads, faults, feed, start: start.seq }))
"""

PYTHON = """
import json, os, sys, time
from mirror import Mirror
reads, faults, feed = 0, [], []
ids, over, path = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
mirror = Mirror(path)
(seq, at), _ = mirror.start_over()
start, is_last = seq, False
while not is_last:
    is_last = os.path.exists(over)
    if reads % 2:
        mirror = Mirror(path)
    reads += 1
    try:
        known, sold = mirror.variant(ids[0])["sellable"], sorted(mirror.may_sell(*ids))
        if known != 1 or sold != ids[:2]:
            faults.append([known, sold])
        for seq, at, *rest in mirror.changes(seq, at):
            feed.append([seq, *rest])
    except Exception as fault:
        faults.append(repr(fault))
    if reads == 1:
        print("ready", flush=True)
    time.sleep(0.01)
print(json.dumps({"reads": reads, "faults": faults, "feed": feed, "start": start}))
"""

RUBY = r"""
require_relative 'mirror'
reads, faults, feed = 0, [], []
ids, over, path = JSON.parse(ARGV[0]), ARGV[1], ARGV[2]
mirror = Mirror.new(path)
position, = mirror.start_over
seq, at = position['seq'], position['recorded_at']
start = seq
loop do
  is_last = File.exist?(over)
  mirror = Mirror.new(path) if reads.odd?
  reads += 1
  begin
    known, sold = mirror.variant(ids[0])['sellable'], mirror.may_sell(*ids).sort
    faults << [known, sold] if known != 1 || sold != ids[0, 2]
    mirror.changes(seq, at).each do |row|
      seq, at = row['seq'], row['recorded_at']
      feed << [seq, row['variant_id'], row['availability'], row['sellable']]
    end
  rescue StandardError => e
    faults << e.message
  end
  if reads == 1
    puts 'ready'
    $stdout.flush
  end
  sleep 0.01
  break if is_last
end
puts JSON.generate(reads: reads, faults: faults, feed: feed, start: start)
"""

GO = r"""package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"shop"
)

func main() {
	var ids []int64
	if err := json.Unmarshal([]byte(os.Args[1]), &ids); err != nil {
		panic(err)
	}
	reads, faults, feed := 0, []any{}, []any{}
	mirror := shop.Mirror{Path: os.Args[3]}
	at, _, err := mirror.StartOver()
	if err != nil {
		panic(err)
	}
	start := at.Seq
	for isLast := false; !isLast; {
		_, err := os.Stat(os.Args[2])
		isLast = err == nil
		reads++
		variant, err := mirror.Variant(ids[0])
		sold := mirror.MaySell(ids...)
		if err != nil || variant == nil || !variant.Sellable || len(sold) != 2 ||
			!sold[ids[0]] || !sold[ids[1]] {
			faults = append(faults, fmt.Sprint(variant, sold, err))
		}
		changes, kept, err := mirror.Changes(at)
		if err != nil || !kept {
			faults = append(faults, fmt.Sprint("not kept: ", err))
		}
		for _, c := range changes {
			at = c.Position
			value, sellable := any(nil), 0
			if c.Availability.Valid {
				value = c.Availability.String
			}
			if c.Sellable {
				sellable = 1
			}
			feed = append(feed, []any{c.Seq, c.ID, value, sellable})
		}
		if reads == 1 {
			fmt.Println("ready")
		}
		time.Sleep(10 * time.Millisecond)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"reads": reads, "faults": faults, "feed": feed, "start": start})
}
"""

# The shell knows no JSON: `_from_lines` reads its lines.
SHELL = r"""
MIRROR=$3
. "$(dirname "$0")/mirror.sh"
reads=0
position=$(start_over | head -n 1)
echo "start|$position"
while :; do
    test -e "$2" && is_last=1
    reads=$((reads + 1))
    sold=$(may_sell $(echo "$1" | tr '[,]' ' ') | sort -n | tr '\n' ' ')
    test "$sold" = "$4" || echo "fault|$sold"
    test "$(may_sell 9999999 | wc -l)" -eq 0 || echo "fault|a line for none"
    one=${4%% *}
    variant "$one" | grep -q '"sellable":1' || echo 'fault|one'
    rows=$(changes "${position%%|*}")
    test "$(echo "$rows" | head -n 1 | cut -d '|' -f 1,2)" = "$position" || echo "fault|not kept"
    echo "$rows" | tail -n +2 | grep . | sed 's/^/row|/'
    position=$(echo "$rows" | tail -n 1 | cut -d '|' -f 1,2)
    test $reads -gt 1 || echo ready
    test -z "$is_last" || break
    sleep 0.05
done
echo "reads|$reads"
"""


class Saw(Struct, frozen=True):
    """What one shop saw: `start` is where it began in the feed, `feed` each row after it."""

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
        if path.suffix == ".mjs" and not has_sqlite():
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
            arguments.append("".join(f"{one} " for one in ids[:2]))
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
        """Let it read once more, and return what it saw."""
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
    told = {line[0]: line[1] for line in lines}
    faults = [line[1] for line in lines if line[0] == "fault"] + ([errors] if errors else [])
    feed: list[tuple[int, int, str | None, int]] = [
        (int(seq), int(variant_id), value, int(sellable))
        for kind, seq, _, variant_id, value, sellable in (line for line in lines if len(line) == 6)
        if kind == "row"
    ]
    return Saw(int(told["reads"]), faults, feed, int(told["start"] or 0))


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
