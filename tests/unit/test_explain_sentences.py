"""`explain` has a sentence for each rule."""

from __future__ import annotations

from syncd.core.explain import RULES
from syncd.core.merge import Rule


def test_every_rule_has_a_sentence() -> None:
    """`explain` can describe each decision."""
    assert set(RULES) == set(Rule.__args__)  # type: ignore[attr-defined]
