"""`syncd explain`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from syncd.cli.common import ID, config_option, json_option, load_config
from syncd.core import explain
from syncd.core.model import Row
from syncd.printing import show, show_json
from syncd.store import Queries


@click.command(
    "explain",
    short_help="Tell why the mirror says so of one variant.",
    epilog="Example:\n\n  syncd explain 48211",
)
@click.argument("variant_id", metavar="VARIANT_ID", type=ID)
@config_option
@json_option
def command(variant_id: int, config_path: str | None, *, as_json: bool) -> int:
    """Tell why the mirror says what it says of one item variant.

    Which delivery or read set the value, when, and what was rejected since, by which rule. Exit
    code 1 when it is not in the mirror.
    """
    reports = Queries(load_config(config_path, with_keys=False).mirror.path)
    try:
        story = reports.story(variant_id)
    finally:
        reports.close()
    if as_json:
        show_json(explain.document(story))
    else:
        for line in explain.sentences(story):
            show(line)
        for decision in explain.decisions(story):
            show(*_line(decision))
    return 0 if story.row is not None else 1


def _line(decision: Row) -> Iterator[str]:
    yield f"  {decision['at']}  "
    if decision["by"] == "delivery" and decision["outcome"] == "quarantined":
        yield f"delivery {decision['delivery_id']} was not understood: quarantined"
    elif decision["by"] == "delivery":
        yield f"delivery {decision['delivery_id']} said "
        yield "a change" if decision["told"] is None else repr(decision["told"])
        yield f": {decision['outcome']}"
    else:
        yield f"{decision['by']} said "
        yield "gone" if decision["to"] is None else repr(decision["to"])
        yield ", which no delivery had told" if decision["missed"] else ""
    yield f" [{decision['rule']}]" if decision["rule"] else ""
    yield f"  {decision['why']}" if decision["why"] else ""
