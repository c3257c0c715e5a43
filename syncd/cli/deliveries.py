"""`syncd deliveries`."""

from __future__ import annotations

import click

from syncd.cli.common import WholeNumber, config_option, json_option, load_config
from syncd.core.model import MAX_ID, OUTCOMES
from syncd.printing import show, show_json_line, show_whole
from syncd.store import Queries


@click.command(
    "deliveries",
    short_help="Print the stored deliveries.",
    epilog="""\b
Examples:
  syncd deliveries                                 the last 20
  syncd deliveries --outcome quarantined --body    the quarantined ones, with their bodies""",
)
@click.option(
    "--outcome",
    metavar="NAME",
    type=click.Choice(OUTCOMES),
    help="Only deliveries with this outcome.",
)
@click.option(
    "--limit",
    metavar="N",
    type=WholeNumber(1, MAX_ID),
    default=20,
    show_default=True,
    help="At most this many deliveries, the newest, e.g. 5.",
)
@click.option("--body", "with_body", is_flag=True, help="With the raw body as it was received.")
@config_option
@json_option
def command(
    outcome: str | None, limit: int, config_path: str | None, *, with_body: bool, as_json: bool
) -> None:
    """Print the stored deliveries, newest first; with --json one object a line."""
    queries = Queries(load_config(config_path, with_keys=False).mirror.path)
    try:
        rows = queries.deliveries(outcome, limit, with_body=with_body)
    finally:
        queries.close()
    if not rows and not as_json:
        show(f"Note: no {f'{outcome} ' if outcome else ''}delivery is stored", err=True)
    for row in rows:
        if as_json:
            show_json_line(row)
            continue
        about = "" if row["variant_id"] is None else f"  variant {row['variant_id']}"
        if row["named_variants"]:
            about = f"  names variant {', '.join(map(str, row['named_variants']))}"
        copies = f"  and {row['duplicates']} copies" if row["duplicates"] else ""
        reason = f"  {row['reason']}" if row["reason"] else ""
        prefix = f"{row['delivery_id']:>8}  {row['received_at']}  {row['outcome']:11}  "
        show(prefix, row["action"] or "-", about, copies, reason)
        if with_body:
            show_whole("(its body is not stored)" if row["body"] is None else row["body"])
