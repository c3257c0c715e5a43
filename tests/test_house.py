"""The house keeps its floors, and the whole of it is typed, linted and formatted."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "syncd"

FLOORS: dict[str, int] = {
    **dict.fromkeys(["", "errors", "model", "plain_text", "timestamps"], 0),
    **dict.fromkeys(
        [
            "signature",
            "deliveries",
            "lenient_json",
            "merge",
            "read_age",
            "named_ids",
            "state",
            "observations",
            "pace",
            "listing",
            "answer_faults",
            "catalogue_answers",
            "content_coding",
            "json_slices",
            "webhook_health",
        ],
        1,
    ),
    **dict.fromkeys(["config", "log_stream", "logs", "http_client", "printing", "running"], 2),
    **dict.fromkeys(
        [
            "environment",
            "ports",
            "clock",
            "source_clock",
            "cached_answers",
            "budget",
            "ingest",
            "account",
            "read_failures",
            "unkept",
            "asking",
            "read_order",
            "refresh",
            "reconcile",
            "survey",
            "replay",
            "explaining",
            "status",
            "metrics",
            "delivery_metrics",
            "refusals",
            "bodies",
            "examining",
            "page",
        ],
        3,
    ),
    **dict.fromkeys(
        ["store", "dreamship", "web", "admin", "control", "http_server", "systemd", "notify"], 4
    ),
    **dict.fromkeys(
        [
            "engine",
            "schedule",
            "heartbeat",
            "questions",
            "monitor",
            "vocabulary",
            "orders",
            "listeners",
            "daemon",
        ],
        5,
    ),
    **dict.fromkeys(["cli", "demo", "simulated", "__main__"], 6),
}
# Pure rules know no clock, socket, file or database.
IMPURE = {"asyncio", "os", "pathlib", "random", "socket", "sqlite3", "time", "httpx", "starlette"}
LONGEST_LINES = 300


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def top_name(path: Path) -> str:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            if node.module == "syncd":
                found += [f"syncd.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    """A floor knows those below it; edges never know each other."""
    me = top_name(path)
    assert me in FLOORS, f"{me} lives on no floor; say which in this test"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "syncd":
            continue
        other = parts[1] if len(parts) > 1 and parts[1] in FLOORS else ""
        if other in {me, ""}:
            continue
        assert FLOORS[other] <= FLOORS[me], f"{me} must not know {other}, which lives above it"
        if FLOORS[me] == 4:
            assert FLOORS[other] != 4, f"the edges {me} and {other} must not know each other"


@pytest.mark.parametrize(
    "path", [p for p in modules() if FLOORS.get(top_name(p), 9) <= 1], ids=lambda path: path.stem
)
def test_pure_rules_know_no_world(path: Path) -> None:
    """Bytes, records and `now` in, decisions out."""
    assert not IMPURE & {name.split(".")[0] for name in imported(path)}


def test_one_module_prints() -> None:
    """There, and only there, text of others is made fit for a terminal."""
    printing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules()
        if path.name != "printing.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func)
        in {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}
    ]
    assert not printing


def test_no_file_has_grown_two_reasons_to_change() -> None:
    """A file that passes some 250 lines is asked what else it does."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in modules()
        if (lines := len(path.read_text().splitlines())) > LONGEST_LINES
    }
    assert not long


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["ruff", "check", "--no-cache", "."], id="lint"),
        pytest.param(["ruff", "format", "--no-cache", "--check", "."], id="format"),
        pytest.param(["mypy"], id="types"),
    ],
)
def test_the_house_is_clean(arguments: list[str]) -> None:
    """Lint, format and strict types, tests included."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
