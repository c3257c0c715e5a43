"""What was measured beside what it should be."""

from __future__ import annotations

from typing import Self

from msgspec import Struct


class Row(Struct, frozen=True):
    """One line: a number, its aim, and what it was made of."""

    name: str
    value: float
    aim: str = ""
    is_met: bool | None = None
    detail: str = ""
    unit: str = "x"

    @classmethod
    def at_least(
        cls, name: str, value: float, aim: float, detail: str = "", unit: str = "x"
    ) -> Self:
        """Return a row whose number should not be smaller."""
        return cls(name, value, f">= {aim:g}", value >= aim, detail, unit)

    @classmethod
    def at_most(
        cls, name: str, value: float, aim: float, detail: str = "", unit: str = "x"
    ) -> Self:
        """Return a row whose number should not be larger."""
        return cls(name, value, f"<= {aim:g}", value <= aim, detail, unit)

    @classmethod
    def told(cls, name: str, value: float, detail: str = "", unit: str = "x") -> Self:
        """Return a row without an aim."""
        return cls(name, value, detail=detail, unit=unit)


def text(rows: list[Row]) -> str:
    """Return a Markdown table."""
    marks = {None: "", True: "yes", False: "NO"}
    lines = ["| what | measured | aim | met | made of |", "|---|---|---|---|---|"]
    for row in rows:
        number = f"{row.value:,.2f}" if abs(row.value) < 100 else f"{row.value:,.0f}"
        lines.append(
            f"| {row.name} | {number} {row.unit} | {row.aim} | {marks[row.is_met]} | {row.detail} |"
        )
    return "\n".join(lines)
