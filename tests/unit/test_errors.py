"""The tree of errors in the docstring of `syncd.errors` shows the classes."""

from __future__ import annotations

import re

from syncd import errors
from syncd.errors import SyncdError


def _tree(error: type[SyncdError], level: int = 0) -> list[tuple[int, str, bool]]:
    rows = [(level, error.__name__, error.retryable)]
    for kind in error.__subclasses__():
        if kind.__module__ == errors.__name__:
            rows += _tree(kind, level + 1)
    return rows


def test_the_docstring_shows_every_error_at_its_place() -> None:
    """In the order of the module, with the errors after which another attempt may succeed."""
    shown = [
        (len(line[4:]) - len(line[4:].lstrip("│├└─ ")), name, "(retryable)" in line)
        for line in (errors.__doc__ or "").splitlines()
        if (name := "".join(re.findall(r"^[│├└─ ]+(\w+)", line)))
    ]
    assert [(width // 4, name, mark) for width, name, mark in shown] == _tree(SyncdError)
