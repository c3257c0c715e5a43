"""`syncd push`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence

import click

from syncd import logs
from syncd.cli.common import WholeNumber, config_option, json_option, load_config
from syncd.cli.ownership import require_owner
from syncd.cli.status import push_line
from syncd.config import Config, Push
from syncd.config.pushes import find_push
from syncd.control import client, messages
from syncd.core.model import MAX_ID, JsonObject
from syncd.core.status_document import PushStatus
from syncd.errors import DaemonAbsent, SyncdError, UsageError
from syncd.printing import show, show_json, show_json_line
from syncd.store import Database, Queries, pushes


@click.command(
    "push",
    short_help="Show the pushes of the change feed, or set where one goes on.",
    epilog="""\b
Examples:
  syncd push                        the position and the last error of each push
  syncd push --dry-run shop         the next batch, without sending it
  syncd push --from 1200 shop       go on after change 1200
  syncd push --from 0 shop          begin again, with a full copy""",
)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--dry-run", is_flag=True, help="Print the next batch, and send nothing.")
@click.option(
    "--from",
    "from_seq",
    metavar="SEQ",
    type=WholeNumber(0, MAX_ID),
    help="Go on after this change; 0: with a full copy.",
)
@config_option
@json_option
def command(
    name: str | None,
    config_path: str | None,
    *,
    dry_run: bool,
    from_seq: int | None,
    as_json: bool,
) -> int:
    """Show each push with its position, its lag and its last error.

    A position that the feed does not have (any more) leads to a full copy. Ends with exit code 1 if
    a push fails or is stopped.
    """
    config = load_config(config_path, with_keys=False)
    if dry_run and from_seq is not None:
        raise UsageError("--dry-run and --from exclude each other", hint="use one of them")
    if from_seq is not None:
        push = find_push(config.push, name)
        _go_on_from(config, push, from_seq)
        where = f"after change {from_seq}" if from_seq else "with a full copy"
        if as_json:
            show_json({"name": push.name, "from": from_seq})
        else:
            show(f"{push.name} goes on {where}")
        return 0
    named = [find_push(config.push, name)] if name is not None else config.push
    if not named and not as_json:
        show("Note: the configuration has no push; syncd/docs/push.md has the steps", err=True)
    if dry_run:
        for push in named:
            show_json_line({"name": push.name} | _next_batch(config, push))
        return 0
    return _show(_states(config, named), as_json=as_json)


def _show(states: list[PushStatus], *, as_json: bool) -> int:
    if as_json:
        show_json({"push": states})
    else:
        for state in states:
            show(f"{state.name:16}  ", push_line(state))
    return 1 if any(state.error for state in states) else 0


def _states(config: Config, named: Sequence[Push]) -> list[PushStatus]:
    """Return the state of the running daemon; without one, the positions in the mirror."""
    try:
        running = {one.name: one for one in client.request_status(config.control.socket).push}
    except SyncdError:
        # Another user may read the mirror, and not use the socket.
        running = {}
    names = [push.name for push in named]
    if all(name in running for name in names):
        return [running[name] for name in names]
    queries = Queries(config.mirror.path)
    try:
        rows = queries.run(lambda db: pushes.positions(db, names))
    finally:
        queries.close()
    stored = {row["name"]: PushStatus(**row, error=None) for row in rows}
    return [running.get(name) or stored[name] for name in names]


def _next_batch(config: Config, push: Push) -> JsonObject:
    queries = Queries(config.mirror.path)
    try:
        cursor = queries.run(lambda db: pushes.load(db, push.name))
        while True:
            step = queries.run(
                lambda db: pushes.next_step(
                    db,
                    push.name,
                    cursor,  # noqa: B023 - called at once
                    only=push.only,
                    most=push.batch,
                )
            )
            if step.changes is not None or step.cursor == cursor:
                return step.document()
            cursor = step.cursor  # it has passed changes that this push does not get
    finally:
        queries.close()


def _go_on_from(config: Config, push: Push, seq: int) -> None:
    try:
        client.request_push(config.control.socket, messages.PushRequest(push.name, seq))
    except DaemonAbsent as error:
        if error.was_reached:
            raise
        require_owner(config.mirror.path)
        logs.configure("warning", config.log.format, secrets=config.secrets)
        asyncio.run(_without_daemon(config, push, seq))


async def _without_daemon(config: Config, push: Push, seq: int) -> None:
    database = Database(config.mirror.path)
    await database.open_in_thread()
    try:
        inode = database.path.stat().st_ino

        def write_position(db: sqlite3.Connection) -> None:
            pushes.identify(db, inode)
            pushes.go_on_from(db, push.name, push.only, seq)

        await database.write(write_position)
    finally:
        await asyncio.to_thread(database.close)
