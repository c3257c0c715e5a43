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
    short_help="Apply the rules to stored deliveries again.",
    epilog="""\b
Examples:
  syncd replay 1207 1208        these stored deliveries
  syncd replay --quarantined    the quarantined ones, after an upgrade""",
)
@click.argument("delivery_ids", metavar="[DELIVERY_ID]...", nargs=-1, type=ID)
@click.option("--quarantined", is_flag=True, help="Every delivery that was not understood.")
@config_option
@json_option
def command(
    delivery_ids: tuple[int, ...], config_path: str | None, *, quarantined: bool, as_json: bool
) -> int:
    """Apply the rules to stored deliveries again.

    If the mirror has newer information, syncd verifies an old value with Dreamship and does not
    apply it. Ends with exit code 1 if some deliveries are still not understood.
    """
    if not delivery_ids and not quarantined:
        raise UsageError(
            "no delivery is named", hint="name ids (see `syncd deliveries`), or use --quarantined"
        )
    config = load_config(config_path, with_keys=False)
    request = messages.ReplayRequest(list(delivery_ids), quarantined)
    try:
        results = client.request_replay(config.control.socket, request)
    except DaemonAbsent as error:
        if error.was_reached:
            raise
        config = load_for_daemon(config_path)
        require_owner(config.mirror.path)
        results = asyncio.run(_without_daemon(config, request))
    if as_json:
        show_json({"replayed": results})
    else:
        for result in results:
            after = result.outcome or "its body is not stored"
            show(f"{result.delivery_id:>8}  {result.before} -> {after}")
        counted = Counter(result.outcome or "without a body" for result in results)
        summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counted.items()))
        show(f"{len(results)} replayed: {summary or 'none'}")
    return 1 if any(result.outcome == "quarantined" for result in results) else 0


async def _without_daemon(config: Config, request: messages.ReplayRequest) -> list[ReplayResult]:
    from syncd.daemon.services import Services  # noqa: PLC0415 - slow to import

    logs.configure("warning", config.log.format, secrets=config.secrets)
    async with await Services.open(config) as services:
        return await services.batch_writer.replay(request.ids, is_quarantined=request.quarantined)
