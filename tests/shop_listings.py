"""The listings of a shop: the CSV file `catalog.listings` of a site."""

from __future__ import annotations

import csv
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Daemon, Site

# SKU, variant and title.
Row = tuple[str, int, str]


def write_listings(site: Site, rows: Sequence[Row]) -> None:
    """Write the file, and configure it."""
    path = site.folder / "listings.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sku", "variant_id", "title"), *rows])
    site.configure(catalog={"listings": str(path)})


def list_skus(daemon: Daemon, rows: Sequence[Row]) -> None:
    """Give a running daemon these SKUs; returns once it has them."""
    write_listings(daemon.site, rows)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.site.until(lambda: (daemon.status()["listings"] or {}).get("total") == len(rows))
