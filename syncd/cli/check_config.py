"""`syncd check-config`."""

from __future__ import annotations

import click

from syncd.cli.common import config_option, json_option, load_config, print_json
from syncd.config import in_force, to_toml


@click.command(
    "check-config",
    short_help="Check the configuration; print it masked.",
    epilog="Example:\n\n  syncd check-config -c config.toml",
)
@config_option
@json_option
def command(config_path: str | None, *, as_json: bool) -> None:
    """Check the configuration and print what is in force, secrets masked.

    Every fault is named at once, with its key.
    """
    config = load_config(config_path)
    config.require_keys()
    if as_json:
        print_json(in_force(config))
        return
    click.echo(to_toml(config), nl=False)
    click.echo(f"# api keys: {len(config.keys)}, from {config.keys_from}")
