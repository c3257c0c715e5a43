"""The documents of the repository: which of them has which section, and the code in each.

A test asks for a section by its heading. `SECTIONS` is the only place that knows its document.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import syncd

ROOT = Path(__file__).parent.parent
# The installed package, which may be a wheel's: its documents and examples are those of a shop.
PACKAGE = Path(syncd.__file__).parent

README = "README.md"
CONTRIBUTING = "CONTRIBUTING.md"
ARCHITECTURE = "syncd/README.md"
OPERATIONS = "systemd/README.md"
SHOPS = "syncd/docs/shops.md"
PERFORMANCE = "syncd/docs/performance.md"
RECONCILING = "syncd/docs/reconciling.md"
REFERENCE = "syncd/docs/reference.md"
PUSH = "syncd/docs/push.md"
PUBLISH = "syncd/docs/publish.md"

DOCUMENTS = (
    README,
    CONTRIBUTING,
    ARCHITECTURE,
    OPERATIONS,
    SHOPS,
    PERFORMANCE,
    RECONCILING,
    REFERENCE,
    PUSH,
    PUBLISH,
    "CHANGELOG.md",
    "SECURITY.md",
    "tests/payloads/README.md",
)

SECTIONS = {
    "Behind your web server": OPERATIONS,
    "Commands": REFERENCE,
    "Completing in your shell": REFERENCE,
    "Configuration": REFERENCE,
    "Exit codes": REFERENCE,
    "HTTP answers of the webhook": REFERENCE,
    "Install": README,
    "Installing it": OPERATIONS,
    "Logs": REFERENCE,
    "Looking around": SHOPS,
    "Metrics": REFERENCE,
    "Pushes": REFERENCE,
    "Removing it": OPERATIONS,
    "Setting it up": PUSH,
    "The body": PUSH,
    "Node": PUSH,
    "PHP": PUSH,
    "Python": PUSH,
    "Several shops on one host": OPERATIONS,
    "Supported versions": README,
    "The file with your SKUs": SHOPS,
    "The folders": ARCHITECTURE,
    "The status document": REFERENCE,
    "The views": REFERENCE,
    "Upgrading": OPERATIONS,
    "What systemd does for it": OPERATIONS,
    "Why not?": SHOPS,
    # Recipes
    "A checkout by SKU": SHOPS,
    "A follower": SHOPS,
    "A product page": SHOPS,
}

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of code, without the indentation of its fence."""

    language: str
    text: str


def text(document: str) -> str:
    """Return a document, named by its path from the root of the repository."""
    folder = PACKAGE.parent if document.startswith("syncd/") else ROOT
    return (folder / document).read_text()


def section(title: str) -> str:
    """Return the text under a heading, up to the next heading of any level."""
    whole = text(SECTIONS[title])
    headings = list(_HEADING.finditer(_without_code(whole)))
    ends = [heading.start() for heading in headings[1:]] + [len(whole)]
    found = [
        whole[heading.end() + 1 : end]
        for heading, end in zip(headings, ends, strict=True)
        if heading[1] == title
    ]
    assert len(found) == 1, f"{SECTIONS[title]} has {len(found)} sections {title!r}"
    return found[0]


def blocks(title: str, language: str = "sh") -> list[str]:
    """Return the blocks of one language in a section, in their order."""
    return [block.text for block in code_in(section(title)) if block.language == language]


def code_of(document: str, language: str) -> list[str]:
    """Return the blocks of one language in a whole document, in their order."""
    return [block.text for block in code_in(text(document)) if block.language == language]


def code_in(markdown: str) -> list[Block]:
    """Return every fenced block of code."""
    return [
        Block(language, textwrap.dedent(code) if indent else code)
        for indent, language, code in _BLOCK.findall(markdown)
    ]


def spans_in(markdown: str) -> list[str]:
    """Return the code spans in sentences and tables."""
    return [str(span) for span in _SPAN.findall(_BLOCK.sub("", markdown))]


def rows(markdown: str, head: str) -> list[list[str]]:
    """Return the cells of the table whose first heading is `head`, without its two head lines."""
    found = re.search(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", markdown, re.MULTILINE)
    assert found, f"there is no table that begins with {head!r}"
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in found.group(1).splitlines()
    ]


def spelled(cell: str) -> str:
    """Return the one code span a cell begins with."""
    found = _SPAN.match(cell)
    assert found, f"{cell!r} begins with no code"
    return found.group(1)


def links(document: str) -> Iterator[str]:
    """Give the targets of the links of a document, pictures included; code has none."""
    prose = _SPAN.sub("", _BLOCK.sub("", text(document)))
    yield from (str(target) for target in _LINK.findall(prose))


def headings(document: str) -> list[str]:
    """Return the titles of all sections of a document."""
    return [str(title) for title in _HEADING.findall(_without_code(text(document)))]


def anchors(document: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    seen: Counter[str] = Counter()
    found = set()
    for title in headings(document):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        anchor = re.sub(r"[^\w -]", "", shown).lower().replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def _without_code(markdown: str) -> str:
    """Return a text of the same length, in which a comment of a script is no heading."""
    return _BLOCK.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), markdown)
