"""`syncd backup`."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import click

from syncd.cli.common import config_option, json_option, load_config
from syncd.printing import show, show_json
from syncd.store.backup import backup


@click.command(
    "backup",
    short_help="Copy the mirror while everything runs.",
    epilog="Example:\n\n  syncd backup /var/backups/availability-$(date +%F).db",
)
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@json_option
def command(path: Path, config_path: str | None, *, as_json: bool) -> None:
    """Write a consistent copy of the mirror to PATH while everything runs.

    The copy is one file. To restore it, put it in the mirror's place while no daemon runs. The
    command never replaces an existing file. Needs no daemon.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    backup(load_config(config_path, with_keys=False).mirror.path, path)
    size = path.stat().st_size
    if as_json:
        show_json({"path": str(path), "bytes": size})
    else:
        show(f"{path}: {size / 1e6:.1f} MB")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that the incomplete copy is removed."""
    del number, frame
    raise KeyboardInterrupt
