"""The configuration: each key once, with its type, its constraint and its default.

Loading, the error messages, `check-config` and the tests of the documents read these declarations.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from msgspec import Meta, Struct, field

from syncd.config.publish import TargetUrl
from syncd.config.types import Address, Secret, SigningSecret
from syncd.config.validators import (
    Between,
    Id,
    Masked,
    Text,
    check_base_url,
    check_not_empty,
    check_push_url,
    check_socket_path,
    check_unique,
    check_url,
    check_webhook_path,
)
from syncd.errors import ConfigurationError

KEYS_VARIABLE = "SYNCD_DREAMSHIP_API_KEYS"
KEYS_CREDENTIAL = "dreamship-api-keys"
# Any value of this variable allows an admin listener that other hosts can reach.
REMOTE_ADMIN_VARIABLE = "SYNCD_ADMIN_ALLOW_REMOTE"

_Ids = Annotated[tuple[Id, ...], Meta(description="a list of different ids"), check_unique]
_OptionalUrl = Annotated[str, Meta(description="an http or https address, or empty"), check_url]


class Dreamship(Struct, frozen=True):
    """Section `[dreamship]`: the account, and the share of its rate limit that syncd may use."""

    base_url: Annotated[str, Meta(description="an https address"), check_base_url] = (
        "https://api.dreamship.com/v1"
    )
    api_keys: Annotated[tuple[Secret, ...], Meta(description="a list of api keys")] = ()
    api_key_file: Path | None = None
    calls_per_minute: Annotated[int, Meta(ge=1, le=6000)] = 45
    timeout_seconds: Annotated[float, Meta(gt=0, le=300)] = 30


class Webhook(Struct, frozen=True):
    """Section `[webhook]`: the public listener."""

    listen: Address = Address("tcp", "127.0.0.1", 8787)
    path: Annotated[str, Meta(description="a path that starts with /"), check_webhook_path] = (
        "/webhooks/dreamship"
    )
    max_body_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 1_048_576
    public_url: Annotated[_OptionalUrl, Masked.QUERY] = ""


class Mirror(Struct, frozen=True):
    """Section `[mirror]`: the database file."""

    path: Path = Path("/var/lib/syncd/availability.db")


class Catalog(Struct, frozen=True):
    """Section `[catalog]`: the mirrored part of the catalogue; if empty, the whole catalogue.

    `listings`: a CSV file with the SKUs of the shop. `listed_only`: mirror only their items.
    """

    items: _Ids = ()
    categories: _Ids = ()
    listings: Path | None = None
    listed_only: bool = False


class Availability(Struct, frozen=True):
    """Section `[availability]`: the values that may be sold, compared trimmed and case-folded.

    `blocked_item_statuses`: variants of an item with one of these statuses are not sold. They are
    compared in the same way.
    """

    # An empty list would take the whole shop off sale by mistake.
    sellable: Annotated[
        tuple[Text, ...], Meta(description="a list of texts, at least one"), check_not_empty
    ] = ("in_stock",)
    blocked_item_statuses: Annotated[tuple[Text, ...], Meta(description="a list of texts")] = ()


class Reconcile(Struct, frozen=True):
    """Section `[reconcile]`: when syncd reads, and which reads count as the truth.

    Without background calls, only sweeps read the catalogue, one in each `every`.
    """

    background_calls_per_minute: Annotated[int, Meta(ge=0, le=6000)] = 15
    every: Annotated[timedelta, Between("1s")] = timedelta(hours=6)
    every_when_silent: Annotated[timedelta, Between("1s")] = timedelta(minutes=30)
    removal_limit_percent: Annotated[int, Meta(ge=0, le=100)] = 20
    settle: Annotated[timedelta, Between("0s", "1h")] = timedelta(seconds=60)
    missed_grace: Annotated[timedelta, Between("0s", "7d")] = timedelta(minutes=10)


class Retention(Struct, frozen=True):
    """Section `[retention]`: how long history is stored."""

    deliveries: Annotated[timedelta, Between("1h")] = timedelta(days=30)
    changes: Annotated[timedelta, Between("1h")] = timedelta(days=90)


class Admin(Struct, frozen=True):
    """Section `[admin]`: the read-only listener; None turns it off."""

    listen: Address | None = Address("tcp", "127.0.0.1", 8788)


class Control(Struct, frozen=True):
    """Section `[control]`: the socket of `reconcile-now` and `status`."""

    socket: Annotated[Path, check_socket_path] = Path("/run/syncd/control.sock")


class Notify(Struct, frozen=True):
    """Section `[notify]`: the command and the URL that notify a person."""

    command: Annotated[tuple[Text, ...], Meta(description="a list of texts"), Masked.ARGUMENTS] = ()
    url: Annotated[_OptionalUrl, Masked.PATH] = ""


class Publish(Struct, frozen=True):
    """Section `[publish]`: the database server that gets the views of the mirror.

    `source`: the name of this shop in every row. Several shops share one `schema`. `standby`: wait
    while the syncd of another host has the lease.
    """

    url: Annotated[
        TargetUrl | None, Meta(description="an address postgresql:// or mysql://, or empty")
    ] = None
    url_file: Path | None = None
    schema: Annotated[
        str,
        Meta(
            pattern=r"^[a-z][a-z0-9_]{0,30}$",
            description="a letter a-z, then up to 30 of a-z, 0-9 and _",
        ),
    ] = "syncd"
    source: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="1 to 64 of A-Z, a-z, 0-9, _, . and -"),
    ] = "default"
    standby: bool = False


class Push(Struct, frozen=True):
    """One table `[[push]]`: a receiver of the change feed, called by URL or run as a command.

    `only`: the changes of all variants, or of those with a SKU in the listings.
    """

    name: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_-]{1,40}$", description="1 to 40 of A-Z, a-z, 0-9, _ and -"),
    ] = ""
    url: Annotated[
        str,
        Meta(description="an https address, http on this host, or empty"),
        check_push_url,
        Masked.PATH,
    ] = ""
    command: Annotated[tuple[Text, ...], Meta(description="a list of texts"), Masked.ARGUMENTS] = ()
    secret: Annotated[
        SigningSecret | None, Meta(description="whsec_ and 24 to 64 bytes in base64, or empty")
    ] = None
    secret_file: Path | None = None
    batch: Annotated[int, Meta(ge=1, le=1000)] = 100
    only: Literal["all", "listings"] = "all"


class Log(Struct, frozen=True):
    """Section `[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Config(Struct, frozen=True):
    """The whole configuration in force. All `keys` verify signatures; the first key reads.

    `signing_secrets`: the secret of each push, by its name. `target`: the URL of `[publish]`.
    """

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
    publish: Publish = Publish()
    push: tuple[Push, ...] = ()
    log: Log = Log()
    keys: tuple[Secret, ...] = ()
    keys_from: str = "nowhere"
    signing_secrets: dict[str, SigningSecret] = field(default_factory=dict)
    target: TargetUrl | None = None

    @property
    def secrets(self) -> set[str]:
        """The texts that no log may contain: secrets, and addresses that may contain a token."""
        signing = {secret.reveal() for secret in self.signing_secrets.values()}
        signing |= {secret.removeprefix(SigningSecret.PREFIX) for secret in signing}
        urls = {self.notify.url, *(push.url for push in self.push)} - {""}
        target = set() if self.target is None else set(self.target.secrets)
        return {key.reveal() for key in self.keys} | signing | urls | target

    def require_keys(self) -> None:
        """Raise ConfigurationError if there is no api key to verify deliveries and to read with."""
        if not self.keys:
            raise ConfigurationError(
                ["dreamship.api_keys: there is no api key"],
                hint=f"`syncd setup` asks for it; or set ${KEYS_VARIABLE}, the credential "
                f"{KEYS_CREDENTIAL}, dreamship.api_key_file or dreamship.api_keys",
            )


SECTIONS: dict[str, type[Struct]] = {
    name: kind
    for name, kind in get_type_hints(Config).items()
    if isinstance(kind, type) and issubclass(kind, Struct)
}


# Arrays of tables: `[[push]]`.
TABLES: dict[str, type[Struct]] = {"push": Push}


def declared(section: type[Struct]) -> dict[str, Any]:
    """Return the keys of a section, each with its type and the metadata of its declaration."""
    return get_type_hints(section, include_extras=True)
