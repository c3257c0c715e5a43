"""`syncd explain`."""

from __future__ import annotations

import click

from syncd import explaining
from syncd.cli.common import ID, config_option, json_option, load_config, print_json
from syncd.model import Row
from syncd.store import Reports


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
    reports = Reports(load_config(config_path, with_keys=False).mirror.path)
    try:
        story = reports.story(variant_id)
    finally:
        reports.close()
    if as_json:
        print_json(explaining.document(story))
    else:
        for line in explaining.sentences(story):
            click.echo(line)
        for decision in explaining.decisions(story):
            click.echo(f"  {_line(decision)}")
    return 0 if story.row is not None else 1


def _line(decision: Row) -> str:
    if decision["by"] == "delivery" and decision["outcome"] == "quarantined":
        what = f"delivery {decision['delivery_id']} was not understood: quarantined"
    elif decision["by"] == "delivery":
        told = "a change" if decision["told"] is None else repr(decision["told"])
        what = f"delivery {decision['delivery_id']} said {told}: {decision['outcome']}"
    else:
        new = "gone" if decision["to"] is None else repr(decision["to"])
        what = f"{decision['by']} said {new}"
        what += ", which no delivery had told" if decision["missed"] else ""
    rule = f" [{decision['rule']}]" if decision["rule"] else ""
    return f"{decision['at']}  {what}{rule}  {decision['why']}".rstrip()
