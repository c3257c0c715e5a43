"""Reads the file `catalog.listings`."""

from __future__ import annotations

from pathlib import Path

from syncd.config.files import read_regular, reason
from syncd.core import listings
from syncd.core.listings import Listing
from syncd.errors import ListingsInvalid

# A million SKUs take some 30 MB.
MAX_BYTES = 64 * 1024 * 1024


def read(path: Path) -> list[Listing]:
    """Return the listings in a file; raises ListingsInvalid."""
    try:
        content = read_regular(path, MAX_BYTES)
    except (OSError, UnicodeError) as error:
        raise ListingsInvalid(
            [f"it cannot be read: {reason(error)}"],
            hint="catalog.listings names a CSV file that the user of the daemon may read",
        ) from None
    return listings.parse(content)
