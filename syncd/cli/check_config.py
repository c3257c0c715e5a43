"""`syncd check-config`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from syncd.cli.common import config_option, json_option, load_for_daemon
from syncd.config import in_force, search, to_toml
from syncd.config.files import absolute
from syncd.config.listings_file import read as read_listings
from syncd.errors import ConfigurationError, ListingsInvalid
from syncd.printing import show, show_json


@click.command(
    "check-config",
    short_help="Check the configuration and print it.",
    epilog="Example:\n\n  syncd check-config -c config.toml",
)
@config_option
@json_option
def command(config_path: str | None, *, as_json: bool) -> None:
    """Check the configuration and print the values in force, with secrets masked.

    Reports all errors at once, each with its key or its environment variable. With --json, errors
    are a document too.
    """
    file: Path | None = None
    skipped: list[str] = []
    try:
        file, skipped = search(config_path, os.environ)
        config = load_for_daemon(str(file))
        if config.catalog.listings is not None:
            read_listings(config.catalog.listings)
    except ConfigurationError as found:
        error = found
        if isinstance(found, ListingsInvalid):
            errors = [f"catalog.listings: {one}" for one in found.errors]
            error = ConfigurationError(errors, hint=found.hint)
        if as_json:
            shown = None if file is None else str(absolute(file))
            show_json({"faults": error.errors, "hint": error.hint, "file": shown})
        raise error from None
    if as_json:
        show_json({"file": str(absolute(file))} | in_force(config))
        return
    show(f"# read from {absolute(file)}", most=None)
    for line in skipped:
        show(f"# {line}", most=None)
    for line in to_toml(config).removesuffix("\n").split("\n"):
        show(line, most=None)
    show(f"# api keys: {len(config.keys)}, from {config.keys_from}")
