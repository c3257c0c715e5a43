"""`syncd serve`."""

from __future__ import annotations

import signal
import sys

import click

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
    """Run the daemon: it takes deliveries, updates the mirror and reconciles.

    SIGTERM or SIGINT ends it after it has finished all received work. SIGHUP reloads the
    configuration and the keys.
    """
    # Until the daemon catches them, a signal ends the start as it ends the daemon: with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    # structlog and httpx import these if they find them: 4 MB that a daemon does not use.
    for unused in ("rich", "pygments"):
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type]
    from syncd import logs  # noqa: PLC0415 - after the lines above

    # First, because a start that fails must not wait for the reader of the log.
    logs.never_wait()
    config = load_for_daemon(config_path)
    require_owner(config.mirror.path)
    logs.configure(config.log.level, config.log.format, secrets=config.secrets)
    logs.catch_all()
    try:
        from syncd.daemon import app  # noqa: PLC0415 - only with a valid configuration

        app.run(config, reload=lambda: load_for_daemon(config_path))
    except SyncdError:
        raise
    except Exception as error:
        logs.report(error)
        raise
