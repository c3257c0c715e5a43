"""`syncd demo flip`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from syncd.cli.common import ID, WholeNumber, json_option
from syncd.cli.program import program
from syncd.printing import show, show_json


@click.command(
    "flip",
    short_help="Change one variant of a running demo.",
    epilog="""\b
Examples:
  syncd demo flip 48002 out_of_stock     its delivery arrives at once
  syncd demo flip 48002 in_stock --lose  no delivery: syncd finds it by reading
  syncd demo flip 48002 backordered      any other value works too
  syncd demo flip 48002 in_stock --port 9000   of the demo with this port""",
)
@click.argument("variant_id", metavar="VARIANT", type=ID)
@click.argument("value", metavar="VALUE")
@click.option("--lose", is_flag=True, help="Lose the delivery: only a read finds the change.")
@click.option(
    "--folder",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The folder of the demo, if several run.",
)
@click.option(
    "--port", metavar="N", type=WholeNumber(1, 65535), help="A port of the demo, if several run."
)
@json_option
def command(
    variant_id: int, value: str, folder: Path | None, port: int | None, *, lose: bool, as_json: bool
) -> int:
    """Change VARIANT at the simulated Dreamship of a running demo to VALUE.

    Dreamship sends a real signed delivery, and the answer of the daemon is shown: `applied` for
    instance. VALUE is in_stock, out_of_stock or any other text. After that, the demo itself
    does not change this variant.
    """
    from syncd.demo import requests  # noqa: PLC0415 - slow to import

    demo = requests.find(folder, port)
    flipped = demo.flip(requests.FlipRequest(variant_id, value, lose))
    if as_json:
        show_json(flipped)
        return 0
    show(f"Variant {variant_id} at Dreamship: ", flipped.old, " -> ", flipped.value)
    if flipped.outcome == "lost":
        show("The delivery was lost, as you wished. syncd finds the change when it reads the item.")
    else:
        show("The delivery was answered: ", flipped.outcome)
    show("Compare with the mirror:")
    config = shlex.quote(demo.place.config)
    show(f"  {program()} availability {variant_id} -c {config}", most=None)
    return 0
