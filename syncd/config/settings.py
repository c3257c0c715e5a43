"""The configuration and its defaults: one record for each section of the file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from msgspec import Struct

from syncd.config.types import Address, Secret
from syncd.errors import ConfigurationError

KEYS_VARIABLE = "SYNCD_DREAMSHIP_API_KEYS"
KEYS_CREDENTIAL = "dreamship-api-keys"
# What it takes to let the admin listener be reached from elsewhere; set to anything.
REMOTE_ADMIN_VARIABLE = "SYNCD_ADMIN_ALLOW_REMOTE"


class Dreamship(Struct, frozen=True):
    """Section `[dreamship]`: the account and how much of its rate limit is ours."""

    base_url: str = "https://api.dreamship.com/v1"
    api_keys: tuple[Secret, ...] = ()
    api_key_file: Path | None = None
    calls_per_minute: int = 45
    timeout_seconds: float = 30


class Webhook(Struct, frozen=True):
    """Section `[webhook]`: the public listener."""

    listen: Address = Address("tcp", "127.0.0.1", 8787)
    path: str = "/webhooks/dreamship"
    max_body_bytes: int = 1_048_576
    public_url: str = ""


class Mirror(Struct, frozen=True):
    """Section `[mirror]`: the database file."""

    path: Path = Path("/var/lib/syncd/availability.db")


class Catalog(Struct, frozen=True):
    """Section `[catalog]`: the part of the catalogue that is mirrored; all of it when empty."""

    items: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()


class Availability(Struct, frozen=True):
    """Section `[availability]`: the values that may be sold, compared trimmed and case-folded."""

    sellable: tuple[str, ...] = ("available", "in_stock", "in stock", "low_stock")


class Reconcile(Struct, frozen=True):
    """Section `[reconcile]`: when to sweep and what to trust."""

    every: timedelta = timedelta(hours=6)
    every_when_silent: timedelta = timedelta(minutes=30)
    removal_limit_percent: int = 20
    settle: timedelta = timedelta(seconds=60)
    missed_grace: timedelta = timedelta(minutes=10)


class Retention(Struct, frozen=True):
    """Section `[retention]`: how long history is kept."""

    deliveries: timedelta = timedelta(days=30)
    changes: timedelta = timedelta(days=90)


class Admin(Struct, frozen=True):
    """Section `[admin]`: the reading listener; None when it is turned off."""

    listen: Address | None = Address("tcp", "127.0.0.1", 8788)


class Control(Struct, frozen=True):
    """Section `[control]`: the socket of `reconcile-now` and `status`."""

    socket: Path = Path("/run/syncd/control.sock")


class Notify(Struct, frozen=True):
    """Section `[notify]`: who is told when something needs a person."""

    command: tuple[str, ...] = ()
    url: str = ""


class Log(Struct, frozen=True):
    """Section `[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Config(Struct, frozen=True):
    """The whole configuration in force. `keys`: all verify, the first one reads."""

    dreamship: Dreamship = Dreamship()
    webhook: Webhook = Webhook()
    mirror: Mirror = Mirror()
    catalog: Catalog = Catalog()
    availability: Availability = Availability()
    reconcile: Reconcile = Reconcile()
    retention: Retention = Retention()
    admin: Admin = Admin()
    control: Control = Control()
    notify: Notify = Notify()
    log: Log = Log()
    keys: tuple[Secret, ...] = ()
    keys_from: str = "nowhere"

    @property
    def secrets(self) -> set[str]:
        """Everything that must never be written down: the keys, and an address with its token."""
        return {key.reveal() for key in self.keys} | ({self.notify.url} - {""})

    def require_keys(self) -> None:
        """Raise ConfigurationError when there is no api key: nothing could be verified or read."""
        if not self.keys:
            raise ConfigurationError(
                ["dreamship.api_keys: there is no api key"],
                hint=f"set ${KEYS_VARIABLE}, the credential {KEYS_CREDENTIAL}, "
                "dreamship.api_key_file or dreamship.api_keys",
            )


SECTIONS: dict[str, type[Struct]] = {
    "dreamship": Dreamship,
    "webhook": Webhook,
    "mirror": Mirror,
    "catalog": Catalog,
    "availability": Availability,
    "reconcile": Reconcile,
    "retention": Retention,
    "admin": Admin,
    "control": Control,
    "notify": Notify,
    "log": Log,
}
