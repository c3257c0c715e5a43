"""One picture of the demo, as lines that fit a terminal of any size: pure, without a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from syncd.core.plain_text import shortened, visible
from syncd.core.status_document import SweepStatus
from syncd.demo.compare import ChangeRow
from syncd.demo.fake_dreamship import UNREACHABLE
from syncd.demo.state import DemoState, story

_TITLE_WIDTH = 12
_BAR_WIDTH, _MIN_BAR_WIDTH = 30, 5
_MIN_CHANGES = 3
# A narrow terminal shows only the values of a change; a wide terminal also shows names.
_MEDIUM, _WIDE = 76, 100
_VALUE_WIDTH = 24
# Bold, reverse, green, red and magenta are legible on light and dark backgrounds. Yellow and dim
# text are not.
_GOOD, _BAD, _NOTICE = "bold green", "bold red", "bold magenta"


def frame(state: DemoState, width: int, height: int, *, encoding: str = "utf-8") -> list[Text]:
    """Return at most `height` lines of at most `width` columns, the most important ones first."""
    # The last column stays free: a full line makes some terminals begin another one.
    columns = max(1, width - 1)
    blocks = [
        _head(state, columns),
        _phases(state, columns),
        _numbers(state, columns),
        _endless(state, columns) if state.is_endless else _story(state, columns),
    ]
    lines = _joined(blocks, height)
    room = height - len(lines)
    if room > _MIN_CHANGES + 2:
        changes = list(_changes(state, columns, room - 1))
        lines += [Text(), *changes] if changes else []
    return [_fitted(line, columns, encoding) for line in lines[: max(0, height)]]


def _joined(blocks: Sequence[list[Text]], height: int) -> list[Text]:
    """Join blocks with empty lines between them, if there is room for these."""
    filled = [block for block in blocks if block]
    spaced: list[Text] = []
    for block in filled:
        spaced += [Text(), *block] if spaced else block
    if len(spaced) <= height:
        return spaced
    return [line for block in filled for line in block]


def _head(state: DemoState, columns: int) -> list[Text]:
    name, time = "syncd demo", f"{state.elapsed_s:.0f} s"
    gap = max(1, columns - len(name) - len(time))
    lines = [Text(f"{name}{' ' * gap}{time}", "bold")]
    if state.status_page:
        lines.append(_titled("Status page", Text(state.status_page, "bold")))
    if state.folder:
        lines += _titled_lines("Folder", Text(visible(state.folder)), columns)
    return lines


def _phases(state: DemoState, columns: int) -> list[Text]:
    phases = state.phases
    if state.phase not in phases:
        return []
    current = phases.index(state.phase)
    line = Text()
    for index, phase in enumerate(phases):
        line.append(f" {phase} ", "bold reverse" if index == current else "")
        line.append(" ")
    if line.cell_len > columns:
        line = Text(f"step {current + 1} of {len(phases)}: ").append(state.phase, "bold reverse")
    return [line, *_wrapped(state.explanation, columns)]


def _numbers(state: DemoState, columns: int) -> list[Text]:
    lines: list[Text] = []
    mirror, sweep = state.comparison, state.sweep
    if state.phase == "filling" and sweep is not None:
        lines += _progress(sweep, columns)
    elif mirror is not None:
        style = _GOOD if mirror.differences == 0 else _NOTICE
        counted = f"{mirror.differences} of {mirror.variants} variants differ from Dreamship"
        lines += _titled_lines("Mirror", Text(counted, style), columns)
    if state.target:
        lines += _titled_lines("Target", Text(visible(state.target)), columns)
    if state.flipped:
        deliveries = state.sent + state.in_flight + state.lost
        noun = "delivery" if deliveries == 1 else "deliveries"
        text = f"{state.flipped} + {state.doubled} sent twice = {deliveries} {noun}"
        lines += _titled_lines("Changes", Text(text), columns)
        counts = Text(f"{deliveries} = {state.sent} arrived + {state.in_flight} on the way + ")
        counts.append(f"{state.lost} lost", _BAD if state.lost else "")
        lines += _titled_lines("Deliveries", counts, columns)
        answers = ", ".join(
            f"{count} {name}"
            for name, count in sorted(state.outcomes.items())
            if name != UNREACHABLE
        )
        if answers and columns >= _WIDE:
            lines += _titled_lines("Answers", Text(visible(answers)), columns)
    return lines


def _progress(sweep: SweepStatus, columns: int) -> list[Text]:
    left = "" if sweep.eta_seconds is None else f", {sweep.eta_seconds} s left"
    text = f"{sweep.checked} of {sweep.total or '?'} items{left}"
    width = min(_BAR_WIDTH, columns - _TITLE_WIDTH - len(text) - 3)
    if width >= _MIN_BAR_WIDTH:
        done = min(width, width * sweep.checked // sweep.total) if sweep.total else 0
        text = f"[{'#' * done}{'.' * (width - done)}] {text}"
    return _titled_lines("Reading", Text(text), columns)


def _story(state: DemoState, columns: int) -> list[Text]:
    styles = {"Lost": _BAD, "Noticed": _NOTICE, "Repaired": _GOOD}
    lines: list[Text] = []
    for title, text, _ in story(state):
        shown = f"{text}." if text else "-"
        lines += _titled_lines(title, Text(shown), columns, styles[title] if text else "")
    if state.checked is not None:
        text = f"reconcile-now read all {state.checked} items again."
        lines += _titled_lines("Checked", Text(text), columns)
    return lines


def _endless(state: DemoState, columns: int) -> list[Text]:
    variant = _any_variant(state)
    if variant is None:
        return []
    flip = f"{state.program} demo flip {variant}"
    return [
        Text("In another terminal:"),
        *_wrapped(f"  {flip} out_of_stock", columns),
        *_wrapped(f"  {flip} in_stock --lose", columns),
        Text("Your shop reads:"),
        *_wrapped(f"  {visible(state.mirror)}", columns),
        Text("Ctrl-C ends it."),
    ]


def _any_variant(state: DemoState) -> int | None:
    return None if state.comparison is None else state.comparison.example


def _changes(state: DemoState, columns: int, room: int) -> Iterator[Text]:
    """Give a heading and as many changes as there is room for."""
    changes = [] if state.comparison is None else state.comparison.last_changes
    if not changes:
        return
    yield Text("Latest changes in the mirror", "bold")
    for change in changes[: room - 1]:
        yield _change(change, columns)


def _change(change: ChangeRow, columns: int) -> Text:
    old = _value(change.old_availability, "(new)")
    new = _value(change.availability, "(removed)")
    if old == new and not change.sellable:
        new = "being checked"
    if columns < _MEDIUM:
        return Text(f"{change.variant_id} {old} -> {new}")
    line = Text(f"{change.variant_id:<9}")
    line.append(f" {_cell(old, 16)} -> {_cell(new, 16)} ")
    line.append("on sale   " if change.sellable else "off sale  ")
    cause = "delivery" if change.cause == "webhook" else change.cause
    line.append(f"{'found by a read' if change.missed else cause:<17}", _NOTICE * change.missed)
    if columns >= _WIDE:
        name = ", ".join(filter(None, (change.item_name, change.variant_name)))
        line.append(visible(shortened(name, 80)))
    return line


def _value(availability: str | None, absent: str) -> str:
    return absent if availability is None else visible(shortened(availability, _VALUE_WIDTH))


def _cell(text: str, columns: int) -> str:
    return set_cell_size(text, columns) if cell_len(text) < columns else _cut(text, columns)


def _titled(title: str, text: Text, style: str = "") -> Text:
    return Text(f"{title:<{_TITLE_WIDTH}}", style).append_text(text)


def _titled_lines(title: str, text: Text, columns: int, style: str = "") -> list[Text]:
    """Return a line with a title; in a narrow terminal the text continues in more lines."""
    whole = _titled(title, text, style)
    if whole.cell_len <= columns:
        return [whole]
    parts = _wrapped(text.plain, columns - _TITLE_WIDTH)
    return [_titled(title if index == 0 else "", one) for index, one in enumerate(parts)]


def _wrapped(text: str, columns: int) -> list[Text]:
    """Return a text in lines that break at spaces; a longer word, like a path, in pieces."""
    lines: list[str] = []
    indent = text[: len(text) - len(text.lstrip())]
    most = max(1, columns - len(indent))
    for word in (piece for whole in text.split() for piece in _pieces(whole, most)):
        if lines and len(lines[-1]) + 1 + len(word) <= columns:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{indent}{word}")
    return [Text(line) for line in lines]


def _pieces(word: str, most: int) -> list[str]:
    return [word[at : at + most] for at in range(0, len(word), most)]


def _fitted(line: Text, columns: int, encoding: str) -> Text:
    """Return a line that is not longer than the terminal, in characters that it can show."""
    plain = line.plain.encode(encoding, "backslashreplace").decode(encoding)
    if plain != line.plain:
        line = Text(plain)
    if line.cell_len <= columns:
        return line
    cut = _cut(line.plain, columns)
    line = line[: len(cut) - 1] if columns > 1 else Text()
    return line.append("~")


def _cut(text: str, columns: int) -> str:
    """Return the beginning of a text; a mark at the end shows that it is not all."""
    return f"{set_cell_size(text, max(0, columns - 1)).rstrip()}~" if text else text
