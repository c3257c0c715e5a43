"""What every command shares: where the configuration is, and what their options take."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from syncd.config import Config, find, load
from syncd.core.model import MAX_ID
from syncd.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """Give a command `--config`; it receives a `config_path`."""
    return click.option(
        "--config",
        "-c",
        "config_path",
        metavar="PATH",
        help="The configuration file. [default: $SYNCD_CONFIG, ./config.toml, "
        "/etc/syncd/config.toml]",
    )(function)


def json_option(function: F) -> F:
    """Give a command `--json`; it receives `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON with stable keys and nothing else."
    )(function)


secrets: set[str] = set()
"""Everything this process read that must never be written down, for whatever it says at its end."""


def load_config(config_path: str | None, *, with_keys: bool = True) -> Config:
    """Return the configuration in force; raises ConfigurationError naming every fault.

    What only reads the mirror or the socket takes it without keys, which the members of the
    mirror's group may not read.
    """
    config = load(find(config_path, os.environ), os.environ, with_keys=with_keys)
    secrets.update(config.secrets)
    return config


def load_for_daemon(config_path: str | None) -> Config:
    """Return the configuration of a process that asks Dreamship and writes the mirror.

    Raises ConfigurationError naming every fault of file, keys and environment.
    """
    # With httpx, which what only reads the mirror does without.
    from syncd.config import environment  # noqa: PLC0415

    config = load_config(config_path)
    faults: list[str] = []
    hints: list[str] = []
    for check in (
        config.require_keys,
        lambda: environment.require_network(config, os.environ),
        environment.require_limits,
    ):
        try:
            check()
        except ConfigurationError as fault:
            faults += fault.faults
            hints.append(fault.hint)
    if faults:
        raise ConfigurationError(faults, hint="; ".join(hints))
    return config


class WholeNumber(click.IntRange):
    """A whole number of a range; says what is wrong with another in plain words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or raise click.BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            shown = repr(value[:40] if isinstance(value, str) else value)
            most = "" if self.max is None else f" to {self.max}"
            self.fail(f"{shown} is no whole number from {self.min}{most}", param, ctx)


ID = WholeNumber(1, MAX_ID)
