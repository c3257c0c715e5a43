"""The content of the mirror, for `syncd doctor`: the values of the catalogue, and the SKUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

from syncd.cli import doctor_checks
from syncd.cli.doctor_checks import Finding
from syncd.config import Config
from syncd.config.listings_file import read
from syncd.config.runtime import runtime_config
from syncd.errors import ListingsInvalid, MirrorError
from syncd.store import Queries, listings

# The values and the SKUs that one line names.
MAX_VALUES = 20
MAX_SKUS = 10


def findings(config: Config) -> Iterator[Finding]:
    """Check the content of the mirror, if there is one that this user can read."""
    policy = runtime_config(config).policy
    try:
        with closing(Queries(config.mirror.path)) as queries:
            sold = queries.sold_values(policy, MAX_VALUES)
            unlisted = queries.unknown_values(policy, MAX_VALUES).named
            dead = queries.run(partial(listings.dead, most=MAX_SKUS))
    except MirrorError:
        return  # other checks report it
    yield doctor_checks.check_values(sold, unlisted)
    if config.catalog.listings is None:
        return
    try:
        skus, error = len(read(config.catalog.listings)), None
    except ListingsInvalid as invalid:
        skus, error = 0, invalid
    is_filled = bool(sold or unlisted)
    yield doctor_checks.check_listings(skus, dead, error, is_filled=is_filled)
