"""The configuration in force. A reload replaces it as a whole, so that no part sees half of it.

Code reads `current` once at the beginning of its work, in the thread of the loop, and passes the
values to the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from msgspec import Struct

from syncd.config.settings import Config
from syncd.core.policy import Policy, folded


class ListedItems(Struct, frozen=True):
    """The items that the listings need.

    `wanted`: listed variants whose items are not known, so that the whole catalogue is read once;
    None: nothing is looked for.
    """

    items: frozenset[int] = frozenset()
    wanted: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """A configuration with the values that are derived from it. `keys` verify signatures."""

    config: Config = field(repr=False)
    policy: Policy
    keys: tuple[str, ...] = field(repr=False)

    @property
    def items(self) -> tuple[int, ...]:
        """The items to read; if `lists_items`, those of the lists too."""
        return tuple(sorted(self.policy.items))

    @property
    def categories(self) -> tuple[int, ...]:
        """The mirrored categories."""
        return self.config.catalog.categories

    @property
    def lists_items(self) -> bool:
        """Whether sweeps list the catalogue or its categories; else they only read `items`."""
        return self.policy.only_items is None

    @property
    def missed_grace(self) -> timedelta:
        """The time to wait before a change found by a read counts as a missed delivery."""
        return self.config.reconcile.missed_grace


class ActiveConfig:
    """Holds the configuration in force, and the items that the listings need."""

    def __init__(self, config: Config, listed: ListedItems | None = None) -> None:
        self.listed = listed
        self.current = runtime_config(config, listed)

    def replace(self, config: Config, listed: ListedItems | None) -> None:
        """Put another configuration, or other listings, in force."""
        self.listed = listed
        self.current = runtime_config(config, listed)


def runtime_config(config: Config, listed: ListedItems | None = None) -> RuntimeConfig:
    """Return a configuration with its derived values.

    `listed`: the items of the listings; None if no listings were ever loaded. Then it is not known
    which items the shop needs, and the whole catalogue is mirrored.
    """
    catalog = config.catalog
    if not catalog.listed_only:
        listed = None
    policy = Policy(
        sellable=folded(config.availability.sellable),
        settle=config.reconcile.settle,
        removal_limit_percent=config.reconcile.removal_limit_percent,
        items=frozenset(catalog.items) if listed is None else listed.items,
        has_categories=bool(catalog.categories),
        blocked_item_statuses=folded(config.availability.blocked_item_statuses),
        is_listed_only=listed is not None,
        wanted=None if listed is None else listed.wanted,
    )
    return RuntimeConfig(config, policy, tuple(key.reveal() for key in config.keys))
