"""What every command shares: where the configuration is, and how results are printed."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Collection
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import click
from msgspec import json

from syncd.config import Config, Secret, find, load

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


def load_config(config_path: str | None) -> Config:
    """Return the configuration in force; raises ConfigurationError naming every fault.

    From then on the traceback of a fault nobody expected has no secret of it.
    """
    config = load(find(config_path, os.environ), os.environ)
    sys.excepthook = partial(_end, config.secrets)
    return config


def _end(
    secrets: Collection[str],
    kind: type[BaseException],
    fault: BaseException,
    trace: TracebackType | None,
) -> None:
    text = "".join(traceback.format_exception(kind, fault, trace))
    for secret in secrets:
        text = text.replace(secret, Secret.MASK)
    sys.stderr.write(text)


def print_json(document: object) -> None:
    """Print one document, indented for whoever looks at it."""
    click.echo(json.format(json.encode(document), indent=2))


def print_json_line(document: object) -> None:
    """Print one document of a feed, at once."""
    click.echo(json.encode(document))
    sys.stdout.flush()


def has_color() -> bool:
    """Tell whether stdout is a terminal that wants colour."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
