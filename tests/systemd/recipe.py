"""The README as a script: what it tells to type is typed, as it stands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

_BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(title: str) -> list[str]:
    """Return the shell blocks under a heading, in their order, up to the next heading."""
    readme = (ROOT / "README.md").read_text()
    found = re.search(
        rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", readme, re.DOTALL | re.MULTILINE
    )
    if found is None:
        raise LookupError(f"README.md has no section {title!r}")
    return [
        re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
        for indent, text in _BLOCK.findall(found.group(1))
    ]
