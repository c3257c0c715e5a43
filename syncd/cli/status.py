"""`syncd status`."""

from __future__ import annotations

import click

from syncd import control
from syncd.cli.common import config_option, json_option, load_config, print_json
from syncd.model import JsonObject

_COLORS = {"ok": "green", "degraded": "yellow", "failing": "red"}


@click.command(
    "status",
    short_help="Tell the daemon's health, with reasons.",
    epilog="Example:\n\n  syncd status --json | jq .webhooks",
)
@config_option
@json_option
def command(config_path: str | None, *, as_json: bool) -> int:
    """Tell the daemon's health, with reasons.

    Exit code 0 when it is ok, 1 when not, 3 when no daemon answers.
    """
    config = load_config(config_path, with_keys=False)
    document = control.ask_status(config.control.socket)
    if as_json:
        print_json(document)
    else:
        _show(document)
    return 0 if document["health"] == "ok" else 1


def _show(status: JsonObject) -> None:
    # A third of the time of the whole command, and `--json` has no use for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    health = status["health"]
    console.print(Text(health, style=_COLORS[health]))
    for reason in status["reasons"]:
        console.print(f"  - {reason}", markup=False)
    webhooks, mirror, sweep = status["webhooks"], status["mirror"], status["sweep"]
    budget = status["budget"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row(
        "webhooks",
        "waiting for the first delivery"
        if status.get("waiting_for_first_delivery")
        else f"{webhooks['state']}, last {webhooks['last_delivery_at']}",
    )
    table.add_row(
        "last 24 hours",
        f"{webhooks['missed_24h']} missed, "
        f"{webhooks['invalid_signatures_24h']} without a valid signature, "
        f"{budget['throttled_24h']} times throttled",
    )
    table.add_row("mirror", mirror["path"])
    table.add_row(
        "",
        f"{mirror['items']} items, {mirror['variants']} variants, "
        f"{mirror['sellable']} sellable, {mirror['removed']} removed",
    )
    table.add_row("oldest confirmed", mirror["oldest_confirmed_at"] or "-")
    if mirror["unknown_values"]:
        values = ", ".join(f"{value!r} x {n}" for value, n in mirror["unknown_values"].items())
        table.add_row("not sellable", values)
    table.add_row("sweep", _sweep(sweep))
    table.add_row("next sweep", sweep["next_at"] or "-")
    table.add_row(
        "budget", f"{budget['used_last_minute']} of {budget['calls_per_minute']} calls a minute"
    )
    table.add_row("to be read", f"{status['refresh_queue']} items")
    table.add_row("quarantined", f"{status['quarantined']} deliveries")
    table.add_row("daemon", f"{status['version']}, since {status['started_at']}")
    console.print(table)


def _sweep(sweep: JsonObject) -> str:
    if sweep["running"]:
        eta = "" if sweep["eta_seconds"] is None else f", about {sweep['eta_seconds']} s left"
        return f"running, {sweep['checked']} of {sweep['total'] or '?'} items{eta}"
    if sweep["last_result"] is None:
        return "none yet"
    return f"{sweep['last_result']}, ended {sweep['last_finished_at']}"
