"""The options that commands share, and the loading of the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from syncd.config import Config, find, load
from syncd.config.publish import require_driver
from syncd.core.model import MAX_ID
from syncd.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])
NOT_IN_MIRROR = (
    "check the id; the mirror has the items of [catalog], once the first sweep has ended"
)


def config_option(function: F) -> F:
    """Add the option `--config` to a command, which receives `config_path`."""
    return click.option(
        "--config",
        "-c",
        "config_path",
        metavar="PATH",
        callback=_require_path,
        help="The configuration file. [default: $SYNCD_CONFIG, ./config.toml, "
        "/etc/syncd/config.toml]",
    )(function)


def _require_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse an empty path: an unset variable of a script must not lead to another file."""
    if value == "":
        raise click.BadParameter("the path is empty", ctx, param)
    return value


def json_option(function: F) -> F:
    """Add the option `--json` to a command, which receives `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON with stable keys and nothing else."
    )(function)


secrets: set[str] = set()
"""All secrets that this process has read; error messages mask them."""


def load_config(config_path: str | None, *, with_keys: bool = True) -> Config:
    """Return the configuration in force; raises ConfigurationError with every error.

    Commands that only read the mirror or the socket load no api keys: members of the mirror's group
    may run these commands, but may not read the keys.
    """
    config = load(find(config_path, os.environ), os.environ, with_keys=with_keys)
    secrets.update(config.secrets)
    return config


def load_for_daemon(config_path: str | None) -> Config:
    """Return the configuration of a process that calls Dreamship and writes the mirror.

    Raises ConfigurationError with every error of the file, the keys and the environment.
    """
    # It imports httpx, which commands that only read the mirror do not need.
    from syncd.config import environment  # noqa: PLC0415

    config = load_config(config_path)
    errors: list[str] = []
    hints: list[str] = []
    for check in (
        config.require_keys,
        lambda: require_driver(config.target),
        lambda: environment.require_network(config, os.environ),
        environment.require_limits,
    ):
        try:
            check()
        except ConfigurationError as error:
            errors += error.errors
            hints.append(error.hint)
    if errors:
        raise ConfigurationError(errors, hint="; ".join(hints))
    return config


class WholeNumber(click.IntRange):
    """A whole number of a range, with a plain error message."""

    def _describe_range(self) -> str:
        """Return the range for the help text; the help of an option has its purpose."""
        if self.max is None or self.max == MAX_ID:
            return f"from {self.min}"
        return f"{self.min} to {self.max}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or raise click.BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            shown = repr(value[:40] if isinstance(value, str) else value)
            most = "" if self.max is None else f" to {self.max}"
            self.fail(f"{shown} is no whole number from {self.min}{most}", param, ctx)


ID = WholeNumber(1, MAX_ID)
