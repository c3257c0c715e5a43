"""`syncd explain`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from syncd.cli.common import ID, NOT_IN_MIRROR, config_option, json_option, load_config
from syncd.core import explain
from syncd.core.model import Row
from syncd.printing import show, show_json
from syncd.store import Queries


@click.command(
    "explain",
    short_help="Explain the value of one variant.",
    epilog="Example:\n\n  syncd explain 48211",
)
@click.argument("variant_id", metavar="VARIANT_ID", type=ID)
@config_option
@json_option
def command(variant_id: int, config_path: str | None, *, as_json: bool) -> int:
    """Explain the value of one item variant in the mirror.

    Shows which delivery or read set the value, when, and which values were rejected since, by which
    rule. Ends with exit code 1 if the mirror lacks the variant.
    """
    queries = Queries(load_config(config_path, with_keys=False).mirror.path)
    try:
        history = queries.variant_history(variant_id)
    finally:
        queries.close()
    if as_json:
        show_json(explain.document(history))
    else:
        for line in explain.sentences(history):
            show(line)
        for decision in explain.decisions(history):
            show(*_line(decision))
        if history.row is None:
            show(f"Try: {NOT_IN_MIRROR}", err=True)
    return 0 if history.row is not None else 1


def _line(decision: Row) -> Iterator[str]:
    yield f"  {decision['at']}  "
    if decision["by"] == "delivery" and decision["outcome"] == "quarantined":
        yield f"delivery {decision['delivery_id']} was not understood: quarantined"
    elif decision["by"] == "delivery":
        yield f"delivery {decision['delivery_id']} reported "
        yield "a change" if decision["told"] is None else repr(decision["told"])
        yield f": {decision['outcome']}"
    else:
        to = decision["to"]
        yield f"{decision['by']} "
        yield "removed the variant" if to is None else f"set {to!r}"
        yield ", which no delivery reported" if decision["missed"] else ""
    yield f" [{decision['rule']}]" if decision["rule"] else ""
    yield f"  {decision['why']}" if decision["why"] else ""
