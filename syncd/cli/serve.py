"""`syncd serve`."""

from __future__ import annotations

import click

from syncd import logs
from syncd.cli.common import config_option, load_for_daemon
from syncd.cli.ownership import require_owner
from syncd.errors import SyncdError


@click.command(
    "serve",
    short_help="Run the daemon.",
    epilog="Example:\n\n  syncd serve --config /etc/syncd/config.toml",
)
@config_option
def command(config_path: str | None) -> None:
    """Run the daemon: take deliveries, keep the mirror, reconcile.

    Ends on SIGTERM or SIGINT after finishing what it received; SIGHUP reads the configuration
    and the keys again.
    """
    # First: not even a start that fails waits for whoever reads why.
    logs.never_wait()
    config = load_for_daemon(config_path)
    require_owner(config.mirror.path)
    logs.configure(config.log.level, config.log.format, secrets=config.secrets)
    logs.catch_all()
    try:
        from syncd.daemon import app  # noqa: PLC0415 - after the configuration is known to be right

        app.run(config, reload=lambda: load_for_daemon(config_path))
    except SyncdError:
        raise
    except Exception as fault:
        logs.report(fault)
        raise
