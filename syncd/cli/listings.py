"""`syncd listings`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from syncd.cli.common import config_option, json_option, load_config
from syncd.core.explain import REASONS
from syncd.core.model import Row
from syncd.core.plain_text import visible
from syncd.printing import Colored, show, show_json
from syncd.store import Queries, listings

# With the longest state, a line has 80 characters.
_WIDTHS = {"sku": 24, "variant": 12, "availability": 18, "state": 0}


@click.command(
    "listings",
    short_help="Show the shop's SKUs, and which can be sold.",
    epilog="""\b
Examples:
  syncd listings --unsellable          what the shop cannot sell, and why
  syncd listings --sku TEE-RED-XL      one SKU""",
)
@click.option("--unsellable", is_flag=True, help="Only SKUs that cannot be sold now.")
@click.option("--unknown", is_flag=True, help="Only SKUs that lead to no variant.")
@click.option("--sku", "skus", metavar="SKU", multiple=True, help="Only this SKU; may be repeated.")
@config_option
@json_option
def command(
    skus: tuple[str, ...],
    config_path: str | None,
    *,
    unsellable: bool,
    unknown: bool,
    as_json: bool,
) -> int:
    """Show the SKUs of catalog.listings, and what the mirror says about each.

    Needs no daemon. Ends with exit code 1 if a named SKU is not in the listings, or if there are no
    listings.
    """
    reasons = listings.DEAD_REASONS if unknown else listings.REASONS if unsellable else ()
    queries = Queries(load_config(config_path, with_keys=False).mirror.path)
    try:
        rows = queries.run(lambda db: listings.find(db, skus, reasons))
        has_any = queries.run(listings.has_any)
        listed = queries.run(lambda db: listings.listed(db, skus))
    finally:
        queries.close()
    not_listed = sorted(set(skus) - listed)
    if as_json:
        show_json({"listings": rows, "not_listed": not_listed})
    else:
        for line in _table(rows):
            show(*line)
    for sku in not_listed:
        show("SKU ", repr(sku), " is not in the listings", err=True)
    if not has_any:
        show("Note: there are no listings; set catalog.listings and reload", err=True)
    return 1 if not_listed or not has_any else 0


def _table(rows: list[Row]) -> Iterator[tuple[str | Colored, ...]]:
    if not rows:
        return
    yield tuple(f"{name:{width}} " for name, width in _WIDTHS.items())
    for row in rows:
        is_sold = bool(row["sellable"])
        state = "sellable" if is_sold else f"no: {REASONS[row['reason']].short}"
        yield (
            _cell(row["sku"], "sku"),
            _cell(str(row["variant_id"]), "variant"),
            _cell(row["availability"] or "-", "availability"),
            Colored(state, "green") if is_sold else state,
        )


def _cell(text: str, column: str) -> str:
    width = _WIDTHS[column]
    clipped = text if len(text) <= width else f"{text[: width - 1]}…"
    return f"{visible(clipped):{width}} "
