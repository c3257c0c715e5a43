"""The measurements and their aims."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from msgspec import Struct


class Row(Struct, frozen=True):
    """One line: a number, its aim, and the numbers from which it was computed."""

    name: str
    value: float | None
    aim: str = ""
    is_met: bool | None = None
    detail: str = ""
    unit: str = "x"

    @classmethod
    def at_least(
        cls, name: str, value: float, aim: float, detail: str = "", unit: str = "x"
    ) -> Self:
        """Return a row with a lower limit for its number."""
        return cls(name, value, f">= {aim:g}", value >= aim, detail, unit)

    @classmethod
    def at_most(
        cls, name: str, value: float, aim: float, detail: str = "", unit: str = "x"
    ) -> Self:
        """Return a row with an upper limit for its number."""
        return cls(name, value, f"<= {aim:g}", value <= aim, detail, unit)

    @classmethod
    def measured(cls, name: str, value: float, detail: str = "", unit: str = "x") -> Self:
        """Return a row without an aim."""
        return cls(name, value, detail=detail, unit=unit)

    @classmethod
    def skipped(cls, name: str, reason: str) -> Self:
        """Return a row of something that cannot be measured on this machine."""
        return cls(name, None, detail=f"skipped: {reason}", unit="")


class ServerRow(Struct, frozen=True):
    """One server under load at one number of connections; None: not counted on this machine."""

    server: str
    connections: int
    per_second: float
    p99_ms: float
    cpu_us: float
    written_kb: float | None
    detail: str = ""


def text(rows: Iterable[Row]) -> str:
    """Return the aims as a Markdown table."""
    marks = {None: "", True: "yes", False: "NO"}
    lines = ["| what | measured | aim | met | made of |", "|---|---|---|---|---|"]
    for row in rows:
        number = "-" if row.value is None else f"{_number(row.value)} {row.unit}"
        lines.append(f"| {row.name} | {number} | {row.aim} | {marks[row.is_met]} | {row.detail} |")
    return "\n".join(lines)


def servers_text(rows: Iterable[ServerRow]) -> str:
    """Return the servers as a Markdown table."""
    lines = [
        "| c | server | deliveries/s | p99, ms | processor, µs | written, KB | notes |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        written = "-" if row.written_kb is None else _number(row.written_kb)
        lines.append(
            f"| {row.connections} | {row.server} | {row.per_second:,.0f} | {_number(row.p99_ms)} "
            f"| {row.cpu_us:,.0f} | {written} | {row.detail} |"
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
