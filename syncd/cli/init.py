"""`syncd init`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from syncd.config import SYSTEM_PATH
from syncd.errors import ConfigurationError
from syncd.printing import show
from syncd.setup.places import initial_text

_MODE = 0o640


@click.command(
    "init",
    short_help="Write a commented configuration.",
    epilog="""\b
Examples:
  syncd init                  ./config.toml; as root /etc/syncd/config.toml
  syncd init -c shop.toml     another place""",
)
@click.option("--config", "-c", "config_path", metavar="PATH", help="Where to write it.")
def command(config_path: str | None) -> None:
    """Write a commented configuration that only its owner and group can read.

    Never replaces a file and asks no questions; `syncd setup` asks, and does all steps. The
    configuration of an ordinary user places the mirror and the socket beside it, so that
    `syncd serve` runs without root. Prints the next steps.
    """
    is_root = os.geteuid() == 0
    path = Path(config_path or (SYSTEM_PATH if is_root else "config.toml")).absolute()
    text = initial_text(is_system=is_root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "w") as file:  # noqa: PTH123 - with a mode
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(
            [f"{path} exists already"],
            hint="check it with `syncd check-config`, or name another place with -c",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            [f"{path} cannot be written: {error.strerror}"], hint="name another place with -c"
        ) from None
    show(f"{path} is written. Write your api key into dreamship.api_keys (or api_key_file),")
    show(f"run `syncd check-config -c {path}`, and start `syncd serve -c {path}`.", most=None)
