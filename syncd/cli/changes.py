"""`syncd changes`."""

from __future__ import annotations

import time

import click

from syncd.cli.common import config_option, has_color, json_option, load_config, print_json_line
from syncd.store import Reports
from syncd.store.reports import Row

POLL_S = 0.1
TAIL = 20
_BATCH = 1000


@click.command(
    "changes",
    epilog="""\b
Examples:
  syncd changes                       the last 20
  syncd changes --since 1200 --json   everything after seq 1200, one JSON object a line
  syncd changes --follow              the last 20, then each as it happens""",
)
@click.option("--since", metavar="SEQ", type=click.IntRange(0), help="Only what came after it.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="At most so many.")
@click.option("--follow", "-f", is_flag=True, help="Go on with each change as it happens.")
@config_option
@json_option
def command(
    since: int | None, limit: int | None, config_path: str | None, *, follow: bool, as_json: bool
) -> None:
    """Print the change feed, oldest first; without --since its last rows."""
    reports = Reports(load_config(config_path).mirror.path)
    try:
        if since is None:
            # Gaps are allowed, so this may be fewer than asked; it is a look, not an account.
            since = max(0, reports.newest_seq() - (limit or TAIL))
        _feed(reports, since, limit, follow=follow, as_json=as_json)
    finally:
        reports.close()


def _feed(reports: Reports, since: int, limit: int | None, *, follow: bool, as_json: bool) -> None:
    left = limit
    while True:
        version = reports.data_version()
        while rows := reports.changes(since, _BATCH if left is None else min(left, _BATCH)):
            for row in rows:
                print_json_line(row) if as_json else click.echo(_line(row), color=has_color())
            since = rows[-1]["seq"]
            if left is not None:
                left -= len(rows)
                if left == 0:
                    return
        if not follow:
            return
        while reports.data_version() == version:
            time.sleep(POLL_S)


def _line(row: Row) -> str:
    old = "(new)" if row["old_availability"] is None else row["old_availability"]
    new = "(removed)" if row["availability"] is None else row["availability"]
    sold = click.style("sellable", fg="green") if row["sellable"] else "not sellable"
    missed = click.style("  missed by deliveries", fg="yellow") if row["missed"] else ""
    return (
        f"{row['seq']:>8}  {row['recorded_at']}  variant {row['variant_id']}  "
        f"{old} -> {new}  {sold}  ({row['cause']}){missed}"
    )
