"""The programs of `tests/shops.py`: one in each language, with the example of that language.

Each takes a JSON list of variants (two that may be sold, one that may not, one that is unknown),
the file that ends it, and the mirror. `shops.sku_of` returns the SKU of a variant.
"""

from __future__ import annotations

PHP = r"""<?php
require_once __DIR__ . '/mirror_sqlite3.php';

function drive(array $ids, string $over, string $path, string $kind): void
{
    [$reads, $faults, $feed] = [0, [], []];
    $mirror = new $kind($path);
    [$start] = $mirror->startOver();
    [$seq, $at] = [$start['seq'], $start['recorded_at']];
    $skus = array_map(fn (int $id) => "Tee's $id", $ids);
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
            $listed = $mirror->listing($skus[2])['reason'] ?? null;
            $sold = $mirror->maySellSkus(...$skus);
            sort($sold);
            if ($listed !== 'value' || $sold !== array_slice($skus, 0, 2)) {
                $faults[] = [$listed, $sold];
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
const skus = ids.map((id) => `Tee's ${id}`)
for (let isLast = false; !isLast;) {
  isLast = existsSync(over)
  if (reads++ % 2) mirror = new Mirror(path)
  try {
    const known = mirror.variant(ids[0])?.sellable
    const sold = [...mirror.maySell(...ids)].sort((a, b) => a - b)
    if (known !== 1 || String(sold) !== String(ids.slice(0, 2))) faults.push([known, sold])
    const listed = mirror.listing(skus[2])?.reason
    const soldSkus = [...mirror.maySellSkus(...skus)].sort()
    if (listed !== 'value' || String(soldSkus) !== String(skus.slice(0, 2))) {
      faults.push([listed, soldSkus])
    }
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
skus = [f"Tee's {one}" for one in ids]
while not is_last:
    is_last = os.path.exists(over)
    if reads % 2:
        mirror = Mirror(path)
    reads += 1
    try:
        known, sold = mirror.variant(ids[0])["sellable"], sorted(mirror.may_sell(*ids))
        if known != 1 or sold != ids[:2]:
            faults.append([known, sold])
        reason, sold = mirror.listing(skus[2])["reason"], sorted(mirror.may_sell_skus(*skus))
        if reason != "value" or sold != skus[:2]:
            faults.append([reason, sold])
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
skus = ids.map { |id| "Tee's #{id}" }
loop do
  is_last = File.exist?(over)
  mirror = Mirror.new(path) if reads.odd?
  reads += 1
  begin
    known, sold = mirror.variant(ids[0])['sellable'], mirror.may_sell(*ids).sort
    faults << [known, sold] if known != 1 || sold != ids[0, 2]
    reason, sold = mirror.listing(skus[2])['reason'], mirror.may_sell_skus(*skus).sort
    faults << [reason, sold] if reason != 'value' || sold != skus[0, 2]
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
	skus := []string{}
	for _, id := range ids {
		skus = append(skus, fmt.Sprint("Tee's ", id))
	}
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
		listing, err := mirror.Listing(skus[2])
		soldSKUs := mirror.MaySellSKUs(skus...)
		if err != nil || listing == nil || listing.Reason.String != "value" ||
			len(soldSKUs) != 2 || !soldSKUs[skus[0]] || !soldSKUs[skus[1]] {
			faults = append(faults, fmt.Sprint(listing, soldSKUs, err))
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
one=${4%% *}
other=${4#* }
set -- "$1" "$2" "$3" "$4" "Tee's $one" "Tee's ${other% }" "Tee's $5"
while :; do
    test -e "$2" && is_last=1
    reads=$((reads + 1))
    sold=$(may_sell $(echo "$1" | tr '[,]' ' ') | sort -n | tr '\n' ' ')
    test "$sold" = "$4" || echo "fault|$sold"
    test "$(may_sell 9999999 | wc -l)" -eq 0 || echo "fault|a line for none"
    sold=$(may_sell_skus "$5" "$6" "$7" "Tee's 9999999" | sort -n | tr '\n' '|')
    test "$sold" = "$5|$6|" || echo "fault|$sold"
    listing "$7" | grep -q '"reason":"value"' || echo 'fault|a reason'
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
