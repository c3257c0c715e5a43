"""Collects the answers of `syncd setup`: from flags, from the terminal, or the defaults."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from msgspec import Struct

from syncd import running
from syncd.cli import common, secret_input
from syncd.cli import setup_questions as questions
from syncd.cli.error_output import print_error
from syncd.cli.setup_questions import Asker
from syncd.config import Config, Secret
from syncd.control import client
from syncd.core.model import Page
from syncd.core.policy import folded
from syncd.errors import ConfigurationError, SourceRefused, SyncdError, UsageError
from syncd.printing import ProgressLine, show
from syncd.setup import account, pasted_keys, users
from syncd.setup.account import Values
from syncd.setup.key_sources import KeySource
from syncd.setup.sites import Server

_ATTEMPTS = 3
_MAX_KEYS = 5
_KEYS_PAGE = "https://app.dreamship.com/app/settings/api/"


class Flags(Struct, frozen=True, kw_only=True):
    """The options of the command; None: not given."""

    key_text: str | None
    sellable: tuple[str, ...]
    public_url: str | None
    shop_users: tuple[str, ...]
    listings: str | None
    server: str | None


class Answers(Struct, frozen=True, kw_only=True):
    """All that setup needs to know. `keys`: those to store, the first one reads."""

    keys: tuple[Secret, ...]
    removed: tuple[str, ...]
    values: Values | None
    sellable: tuple[str, ...]
    public_url: str
    shop_users: tuple[str, ...]
    listings: str
    server: Server | None


def collect(
    config: Config,
    source: KeySource,
    flags: Flags,
    asker: Asker,
    say: Callable[[str], None],
    *,
    is_system: bool,
) -> Answers:
    """Return all answers; writes nothing. The key is tested before the next question."""
    if source.removed:
        say(f"Removed in the file with the keys: {', '.join(source.removed)}.")
    keys, removed, page = _keys(config, source, flags, asker, say)
    values = account.values_of_mirror(config) or _read_values(config, keys[0], page)
    _show_values(values, say)
    sellable = _sellable(config, values, flags, asker, say)
    public_url = _public_url(config, flags, asker)
    return Answers(
        keys=keys,
        removed=removed,
        values=values,
        sellable=sellable,
        public_url=public_url,
        shop_users=_shop_users(flags, asker, is_system=is_system),
        listings=_listings(config, flags, asker, is_system=is_system),
        server=_server(public_url, flags, asker),
    )


def _keys(
    config: Config, source: KeySource, flags: Flags, asker: Asker, say: Callable[[str], None]
) -> tuple[tuple[Secret, ...], tuple[str, ...], Page]:
    """Return the keys to store, the kinds of removed text, and the first page of items."""
    for attempt in range(1, _ATTEMPTS + 1):
        is_last = flags.key_text is not None or asker.takes_defaults or attempt == _ATTEMPTS
        try:
            keys, removed = _given_keys(source, flags, asker, say)
            return (*_stored(keys, source, removed), _tested(config, keys or source.keys[:1], say))
        except (ConfigurationError, SourceRefused) as error:
            if is_last:
                raise
            print_error(error)
    raise AssertionError


def _given_keys(
    source: KeySource, flags: Flags, asker: Asker, say: Callable[[str], None]
) -> tuple[tuple[Secret, ...], tuple[str, ...]]:
    """Return the new keys; none to keep those that are configured."""
    text = flags.key_text
    if text is None and not asker.takes_defaults:
        asker.require_terminal("--key-file FILE")
        kept = f" (Enter keeps the {len(source.keys)} configured)" if source.keys else ""
        show(f"Your api key is at {_KEYS_PAGE}. What you paste is not shown.", err=True)
        text = secret_input.read_secret(f"Api key{kept}: ")
    if not (text or "").strip() and source.keys:
        return (), ()
    if text is None:
        raise ConfigurationError(
            ["there is no api key"],
            hint="name a file with --key-file FILE, or pass the key on stdin with --key-file -",
        )
    try:
        found = pasted_keys.find_keys(text)
    except ValueError as error:
        raise ConfigurationError([f"the text {error}"], hint=f"copy it from {_KEYS_PAGE}") from None
    common.secrets.update(key.reveal() for key in found.keys)
    if found.removed:
        say(f"Removed around the key: {', '.join(found.removed)}.")
    return found.keys, found.removed


def _stored(
    keys: tuple[Secret, ...], source: KeySource, removed: tuple[str, ...]
) -> tuple[tuple[Secret, ...], tuple[str, ...]]:
    """Return the keys to store: the new ones first. An old key still verifies deliveries."""
    return tuple(dict.fromkeys((*keys, *source.keys))), (*removed, *source.removed)


def _tested(config: Config, keys: tuple[Secret, ...], say: Callable[[str], None]) -> Page:
    pages = [running.run(account.first_page(config, key)) for key in keys[:_MAX_KEYS]]
    count = "" if pages[0].count is None else f": {pages[0].count:,} items"
    accepted = "the key" if len(pages) == 1 else f"{len(pages)} keys"
    say(f"Dreamship accepts {accepted}{count}.")
    return pages[0]


def _read_values(config: Config, key: Secret, page: Page) -> Values | None:
    calls = config.dreamship.calls_per_minute - 1
    with suppress(SyncdError):  # without a daemon, nobody else uses the budget
        calls -= client.request_status(config.control.socket).budget.used_last_minute
    line = ProgressLine()

    def draw(number: int, total: int) -> None:
        line.draw(f"Reading items to see their values: {number} of {total}")

    try:
        values = running.run(account.values_of_items(config, key, page, calls, draw))
    finally:
        line.draw("")
    return values if values.counts else None


def _show_values(values: Values | None, say: Callable[[str], None]) -> None:
    if values is None:
        say("No item could be read, so the values of the catalogue are not known yet.")
        return
    of = "the whole catalogue" if values.items is None else f"{values.items} items"
    say(f"Values of availability in {of}:")
    for number, (value, count) in enumerate(values.counts.items(), 1):
        say(f"  {number:2}  {count:9,} variants  {value or '(empty)'}")


def _sellable(
    config: Config,
    values: Values | None,
    flags: Flags,
    asker: Asker,
    say: Callable[[str], None],
) -> tuple[str, ...]:
    configured = config.availability.sellable
    chosen = flags.sellable or asker.ask(
        "Which of them may be sold? Numbers or values, separated by commas",
        "--sellable VALUE",
        questions.joined(configured),
        partial(questions.parse_values, values=values),
    )
    if values is not None:
        known = folded(values.counts)
        if unseen := [value for value in chosen if not folded([value]) <= known]:
            say(f"None of these variants has the value {questions.joined(unseen)}.")
    return configured if folded(chosen) == folded(configured) else tuple(chosen)


def _public_url(config: Config, flags: Flags, asker: Asker) -> str:
    parse = partial(questions.parse_url, path=config.webhook.path)
    if flags.public_url is not None:
        return questions.flagged("--public-url", flags.public_url, parse)
    configured = config.webhook.public_url
    if asker.takes_defaults:
        return configured
    example = "" if configured else ", for example https://hooks.example.com (Enter: later)"
    return asker.ask(
        f"The https address of this host for Dreamship{example}",
        "--public-url URL",
        configured,
        lambda text: text if text == configured else parse(text),
    )


def _shop_users(flags: Flags, asker: Asker, *, is_system: bool) -> tuple[str, ...]:
    if flags.shop_users:
        return questions.flagged("--shop-user", ",".join(flags.shop_users), questions.parse_users)
    if not is_system:
        return ()
    return asker.ask(
        "Users of your shop that read the mirror, separated by commas (none: nobody)",
        "--shop-user USER",
        questions.joined(users.members(users.USER)) or users.guess_shop_user() or "none",
        questions.parse_users,
    )


def _listings(config: Config, flags: Flags, asker: Asker, *, is_system: bool) -> str:
    parse = partial(questions.parse_listings, is_system=is_system)
    configured = config.catalog.listings
    if flags.listings is not None:
        return questions.flagged("--listings", flags.listings, parse)
    if asker.takes_defaults:
        return str(configured or "")
    return asker.ask(
        "CSV file with the SKUs of your shop (none: without)",
        "--listings FILE",
        str(configured or "none"),
        parse,
    )


def _server(public_url: str, flags: Flags, asker: Asker) -> Server | None:
    if flags.server is not None:
        if flags.server != "none" and not public_url:
            raise UsageError(
                "--proxy needs --public-url, the address of the site", hint="add --public-url URL"
            )
        return questions.parse_server(flags.server)
    if not public_url.startswith("https:"):
        return None
    return asker.ask(
        "Web server for which to print the site: nginx, caddy or none",
        "--proxy nginx|caddy|none",
        questions.guess_server(),
        questions.parse_server,
    )
