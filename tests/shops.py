"""Shops in other languages: the documented recipes, taken from their document and driven.

Each runs as a process of its own, reads until a file appears, and then tells in one line of JSON
what it saw. What it may do it is given by the user it runs as.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from documents import ROOT, blocks, section
from msgspec import Struct, json

DOCUMENTED_MIRROR = "/var/lib/syncd/availability.db"
# Where .ci/run installs what comes from npm; TWIN is what Node needs before version 22.13.
NODE_MODULES = ROOT / ".ci" / "node_modules"
TWIN = "@photostructure/sqlite"
# Ours may live in a folder that another user cannot enter.
SYSTEM_PYTHON = shutil.which("python3", path=os.defpath) or sys.executable

PHP = r"""
function drive(string $kind, array $ids, string $over): void
{
    [$reads, $faults, $feed] = [0, [], []];
    $mirror = new $kind();
    [$start] = $mirror->startOver();
    [$seq, $at] = [$start['seq'], $start['recorded_at']];
    do {
        $isLast = file_exists($over);
        if ($reads++ % 2) {
            $mirror = new $kind();
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
drive($argv[1], json_decode($argv[2]), $argv[3]);
"""

NODE = r"""
let [reads, faults, feed] = [0, [], []]
const [ids, over] = [JSON.parse(process.argv[2]), process.argv[3]]
const nap = new Int32Array(new SharedArrayBuffer(4))
let mirror = new Mirror()
const [start] = mirror.startOver()
let { seq, recorded_at: at } = start
for (let isLast = false; !isLast;) {
  isLast = require('node:fs').existsSync(over)
  if (reads++ % 2) mirror = new Mirror()
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
  if (reads === 1) require('node:fs').writeSync(1, 'ready\n')
  Atomics.wait(nap, 0, 0, 10)
}
console.log(JSON.stringify({ reads, faults, feed, start: start.seq }))
"""

PYTHON = """
import os, sys, time
reads, faults, feed = 0, [], []
ids, over = json.loads(sys.argv[1]), sys.argv[2]
mirror = Mirror()
(seq, at), _ = mirror.start_over()
start, is_last = seq, False
while not is_last:
    is_last = os.path.exists(over)
    if reads % 2:
        mirror = Mirror()
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
reads, faults, feed = 0, [], []
ids, over = JSON.parse(ARGV[0]), ARGV[1]
mirror = Mirror.new
position, = mirror.start_over
seq, at = position['seq'], position['recorded_at']
start = seq
loop do
  is_last = File.exist?(over)
  mirror = Mirror.new if reads.odd?
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

# The shell knows no JSON: its lines are put together by the one who asked.
SHELL = r"""
reads=0
position=$(start_over | head -n 1)
echo "start|$position"
while :; do
    test -e "$2" && is_last=1
    reads=$((reads + 1))
    sold=$(may_sell $(echo "$1" | tr '[,]' ' ') | sort -n | tr '\n' ' ')
    test "$sold" = "$3" || echo "fault|$sold"
    test "$(may_sell 9999999 | wc -l)" -eq 0 || echo "fault|a line for none"
    one=${3%% *}
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
    """One language: which documented blocks it is made of, and how it is run."""

    name: str
    title: str
    interpreter: str
    block: str
    driver: str
    arguments: tuple[str, ...] = ()

    def program(self, mirror: Path) -> str:
        """Return the recipe, word for word but for where the mirror is, and what drives it."""
        recipe = "\n".join(blocks(self.title, self.block))
        assert DOCUMENTED_MIRROR in recipe
        recipe = recipe.replace(DOCUMENTED_MIRROR, str(mirror))
        if self.interpreter == "node" and not has_sqlite():
            assert f"`require('{TWIN}')`" in section("Node")
            recipe = recipe.replace("node:sqlite", TWIN)
        return recipe + self.driver

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
        return ""


SHOPS = [
    Shop("PHP PDO", "PHP", "php", "php", PHP, ("Mirror",)),
    Shop("PHP SQLite3", "PHP", "php", "php", PHP, ("Sqlite3Mirror",)),
    Shop("Node", "Node", "node", "js", NODE),
    Shop("Python", "Python", SYSTEM_PYTHON, "python", PYTHON),
    Shop("Ruby", "Ruby", "ruby", "ruby", RUBY),
    Shop("sqlite3", "The sqlite3 command", "sqlite3", "sh", SHELL),
]


class Visit:
    """A shop that reads until `end` is called; as `user`, who is in a group of the same number."""

    def __init__(
        self, shop: Shop, mirror: Path, folder: Path, ids: list[int], user: int | None
    ) -> None:
        self.shop = shop
        self._first = ""
        self._over = folder / f"over {shop.name}"
        self._over.unlink(missing_ok=True)
        suffix = {"node": ".js", "php": ".php"}.get(shop.interpreter, "")
        program = folder / f"{shop.name}{suffix}"
        program.write_text(shop.program(mirror))
        program.chmod(0o644)
        arguments = [*shop.arguments, json.encode(ids).decode(), str(self._over)]
        interpreter = shop.interpreter
        if interpreter == "sqlite3":
            interpreter = "sh"
            arguments.append("".join(f"{one} " for one in ids[:2]))
        self._process = subprocess.Popen(
            [interpreter, str(program), *arguments],
            cwd="/",
            env={
                "HOME": "/nonexistent",
                "LANG": "C.UTF-8",
                "NODE_PATH": str(NODE_MODULES),
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
    """Tell whether this Node has SQLite built in."""
    return _node("require('node:sqlite')")


def _node(code: str) -> bool:
    return _runs("node", "-e", code)


def _runs(*command: str) -> bool:
    environ = {"PATH": os.environ["PATH"], "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    return done.returncode == 0
