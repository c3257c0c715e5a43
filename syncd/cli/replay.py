"""`syncd replay`."""

from __future__ import annotations

import asyncio
from collections import Counter

import click

from syncd import logs
from syncd.cli.common import (
    ID,
    config_option,
    json_option,
    load_config,
    load_for_daemon,
)
from syncd.cli.ownership import require_owner
from syncd.config import Config
from syncd.control import client, messages
from syncd.core.records import ReplayResult
from syncd.errors import DaemonAbsent, UsageError
from syncd.printing import show, show_json


@click.command(
    "replay",
    short_help="Judge kept deliveries again.",
    epilog="""\b
Examples:
  syncd replay 1207 1208        these kept deliveries
  syncd replay --quarantined    whatever was not understood, after an upgrade""",
)
@click.argument("delivery_ids", metavar="[DELIVERY_ID]...", nargs=-1, type=ID)
@click.option("--quarantined", is_flag=True, help="Every delivery that was not understood.")
@config_option
@json_option
def command(
    delivery_ids: tuple[int, ...], config_path: str | None, *, quarantined: bool, as_json: bool
) -> int:
    """Put kept deliveries through the rules again.

    Where the mirror has moved on, an old word is verified with the source, never believed. Exit
    code 1 when some are still not understood.
    """
    if not delivery_ids and not quarantined:
        raise UsageError(
            "which deliveries?", hint="name their ids (`syncd deliveries`), or --quarantined"
        )
    config = load_config(config_path, with_keys=False)
    request = messages.ReplayRequest(list(delivery_ids), quarantined)
    try:
        done = client.ask_replay(config.control.socket, request)
    except DaemonAbsent as absent:
        if absent.was_reached:
            raise
        config = load_for_daemon(config_path)
        require_owner(config.mirror.path)
        done = asyncio.run(_by_itself(config, request))
    if as_json:
        show_json({"replayed": done})
    else:
        for one in done:
            after = "its body was not kept" if one.outcome is None else one.outcome
            show(f"{one.delivery_id:>8}  {one.before} -> {after}")
        counted = Counter("not kept" if one.outcome is None else one.outcome for one in done)
        told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counted.items()))
        show(f"{len(done)} replayed: {told or 'none'}")
    return 1 if any(one.outcome == "quarantined" for one in done) else 0


async def _by_itself(config: Config, request: messages.ReplayRequest) -> list[ReplayResult]:
    from syncd.daemon.services import Services  # noqa: PLC0415 - with a daemon none of it is needed

    logs.configure("warning", config.log.format, secrets=config.secrets)
    async with await Services.open(config) as services:
        return await services.replay(request.ids, is_quarantined=request.quarantined)
