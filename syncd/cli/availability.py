"""`syncd availability`."""

from __future__ import annotations

import click

from syncd.cli.common import ID, NOT_IN_MIRROR, config_option, json_option, load_config
from syncd.printing import show, show_json
from syncd.store import Queries


@click.command(
    "availability",
    short_help="Show the mirror's rows for variants.",
    epilog="Example:\n\n  syncd availability 48211 48212",
)
@click.argument("variant_ids", metavar="VARIANT_ID...", nargs=-1, required=True, type=ID)
@config_option
@json_option
def command(variant_ids: tuple[int, ...], config_path: str | None, *, as_json: bool) -> int:
    """Show the mirror's rows for item variants, as the shop reads them.

    Ends with exit code 1 if the mirror lacks one of them.
    """
    queries = Queries(load_config(config_path, with_keys=False).mirror.path)
    try:
        rows = queries.availability(variant_ids)
    finally:
        queries.close()
    known = {row["variant_id"] for row in rows}
    unknown = [variant_id for variant_id in variant_ids if variant_id not in known]
    if as_json:
        show_json({"variants": rows, "unknown": unknown})
    else:
        for index, row in enumerate(rows):
            if index:
                show()
            for name, value in row.items():
                show(f"{name:23} ", "-" if value is None else str(value))
    for variant_id in unknown:
        show(f"variant {variant_id} is not in the mirror; {NOT_IN_MIRROR}", err=True)
    return 1 if unknown else 0
