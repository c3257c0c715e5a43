"""The picture of the demo fits each terminal, and its sentences add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from syncd.core.status_document import SweepStatus
from syncd.demo.compare import ChangeRow, Comparison
from syncd.demo.frame import frame
from syncd.demo.state import ENDLESS_PHASES, PHASES, DemoState, Result, story, sums

SWEEP = SweepStatus(
    running=True,
    checked=120,
    total=300,
    eta_seconds=6,
    last_finished_at=None,
    last_result=None,
    next_at=None,
)
FOLDER = "/tmp/syncd-demo-abcdefgh"


def comparison(value: str) -> Comparison:
    rows = [
        ChangeRow(
            48_000 + number,
            "in_stock",
            value,
            old_sellable=True,
            sellable=False,
            cause="read",
            missed=number % 2 == 0,
            item_name="A mug 7",
            variant_name="Red",
        )
        for number in range(60)
    ]
    return Comparison(2401, 44, 3, 1900, 84, rows, 48_003)


def state(phase: str, *, value: str = "out_of_stock", folder: str = FOLDER) -> DemoState:
    """Return the state at the beginning of a phase of a usual demo."""
    one = DemoState(
        folder=folder,
        mirror=f"{folder}/availability.db",
        status_page="http://127.0.0.1:45678/",
        program="~/.cache/uv/archive-v0/Go4oqkpeoevs8fZQ/bin/syncd",
        phase=phase,
        explanation="the network loses every delivery; only reads find the changes",
        is_endless=phase == "running",
        elapsed_s=34.2,
        sweep=SWEEP,
    )
    if phase in {"starting", "filling"}:
        return one
    one.comparison = comparison(value)
    one.flipped, one.doubled, one.sent, one.in_flight, one.lost = 3040, 340, 2500, 40, 840
    one.outcomes.update(applied=2100, duplicate=300, unchanged=50, verifying=50, unreachable=7)
    if phase in {"outage", "repairing", "checking", "comparing", "done"}:
        one.outage_s, one.noticed_s = 27.2, 29.8
    if phase in {"repairing", "checking", "comparing", "done"}:
        one.online_s, one.repaired_s = 36.1, 44.5
    if phase in {"comparing", "done"}:
        one.checked = 300
    return one


ALL_PHASES = (*PHASES, *ENDLESS_PHASES, "done")


@given(
    phase=st.sampled_from(ALL_PHASES),
    size=st.tuples(st.integers(1, 250), st.integers(0, 90)),
    value=st.text(max_size=40),
    folder=st.text(min_size=1, max_size=120),
    encoding=st.sampled_from(["utf-8", "ascii", "latin-1"]),
)
def test_each_picture_fits_its_terminal(
    phase: str, size: tuple[int, int], value: str, folder: str, encoding: str
) -> None:
    """No line reaches the last column, and each has only characters of the locale."""
    width, height = size
    lines = frame(state(phase, value=value, folder=folder), width, height, encoding=encoding)
    assert len(lines) <= height
    for line in lines:
        assert line.cell_len <= max(1, width - 1)
        assert "\n" not in line.plain
        line.plain.encode(encoding)


@pytest.mark.parametrize("phase", ALL_PHASES)
@pytest.mark.parametrize("width", [60, 80])
def test_a_small_terminal_has_all_that_matters(phase: str, width: int) -> None:
    """The status page, the folder, the phase, the numbers and the story: whole, not cut."""
    lines = [line.plain for line in frame(state(phase), width, 24)]
    text = "\n".join(lines)
    assert "http://127.0.0.1:45678/" in text
    assert FOLDER in text
    assert phase in text or phase == "done"
    if phase in {"outage", "repairing", "checking", "comparing", "done"}:
        assert [line[:8].strip() for line in lines].index("Lost") > 0
        assert "Noticed" in text
        assert "Repaired" in text
        assert "840 lost" in text
    # Only long foreign text is cut, and the path of a program in a cache.
    assert not [line for line in lines if line.endswith("~") and "demo flip" not in line]


def test_a_large_terminal_has_more_changes_with_names() -> None:
    """80 columns have no room for names, and 24 lines none for many changes."""
    small = [line.plain for line in frame(state("repairing"), 80, 24)]
    large = [line.plain for line in frame(state("repairing"), 160, 50)]
    assert sum("A mug 7, Red" in line for line in large) > 25
    assert not any("A mug 7" in line for line in small)
    assert 3 < sum(line.startswith("48") for line in small) < 12


@pytest.mark.parametrize("phase", ["delivering", "outage", "repairing", "done"])
def test_the_numbers_add_up(phase: str) -> None:
    """Changes and second deliveries are all deliveries; arrived, on the way and lost are too."""
    lines = {line.plain[:12].strip(): line.plain[12:] for line in frame(state(phase), 80, 24)}
    assert lines["Changes"] == "3040 + 340 sent twice = 3380 deliveries"
    assert lines["Deliveries"] == "3380 = 2500 arrived + 40 on the way + 840 lost"


def test_the_story_grows_with_the_events() -> None:
    """Nothing before it happens; then what was lost, who noticed it, and the repair."""
    texts = [sentence.text for sentence in story(state("delivering"))]
    assert texts == ["", "", ""]
    lost, noticed, repaired = story(state("repairing"))
    assert lost.text == "for 8.9 s, the network lost every delivery, 840 in all"
    assert noticed.text == "after 2.6 s without deliveries, a read found a lost change"
    assert repaired.text == "the mirror was right 8.4 s after the network came back, by itself"


@pytest.mark.parametrize(
    ("repaired", "said"), [(107, "All were found and repaired"), (106, "106 changes")]
)
def test_the_result_is_said_in_short_sentences(repaired: int, said: str) -> None:
    """Each fits a line of 80 columns."""
    result = Result(
        differences=0,
        variants=2400,
        changes=327,
        sent=254,
        lost=107,
        doubled=34,
        repaired=repaired,
        repaired_s=8.4,
        reconcile={"items": 300, "changed": 0},
        seconds=58.2,
        database=f"{FOLDER}/availability.db",
    )
    sentences = sums(result)
    assert all(cell_len(sentence) < 80 for sentence in sentences)
    assert "Of 361 deliveries, 254 arrived and 107 were lost." in sentences
    assert said in sentences[2]
