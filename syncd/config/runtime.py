"""The configuration in force. A reload replaces it as a whole, so that no part sees half of it.

Code reads `current` once at the beginning of its work, in the thread of the loop, and passes the
values to the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from syncd.config.settings import Config
from syncd.core.policy import Policy


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """A configuration with the values that are derived from it. `keys` verify signatures."""

    config: Config = field(repr=False)
    policy: Policy
    keys: tuple[str, ...] = field(repr=False)

    @property
    def items(self) -> tuple[int, ...]:
        """The mirrored items; with no items and no categories the whole catalogue is mirrored."""
        return self.config.catalog.items

    @property
    def categories(self) -> tuple[int, ...]:
        """The mirrored categories."""
        return self.config.catalog.categories

    @property
    def missed_grace(self) -> timedelta:
        """The time to wait before a change found by a read counts as a missed delivery."""
        return self.config.reconcile.missed_grace


class ActiveConfig:
    """Holds the configuration in force."""

    def __init__(self, config: Config) -> None:
        self.current = runtime_config(config)

    def replace(self, config: Config) -> None:
        """Put another configuration in force."""
        self.current = runtime_config(config)


def runtime_config(config: Config) -> RuntimeConfig:
    """Return a configuration with its derived values."""
    policy = Policy(
        sellable=frozenset(value.strip().casefold() for value in config.availability.sellable),
        settle=config.reconcile.settle,
        removal_limit_percent=config.reconcile.removal_limit_percent,
        items=frozenset(config.catalog.items),
        has_categories=bool(config.catalog.categories),
    )
    return RuntimeConfig(config, policy, tuple(key.reveal() for key in config.keys))
