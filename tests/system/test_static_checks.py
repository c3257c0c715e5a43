"""Imports go down, files are short, and all of it is typed, linted and formatted."""

from __future__ import annotations

import ast
import subprocess
import sysconfig
from pathlib import Path

import pytest
from documents import ROOT

PACKAGE = ROOT / "syncd"

LONGEST_LINES = 300


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


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
    "command",
    [
        pytest.param(["ruff", "check", "--no-cache", "."], id="lint"),
        pytest.param(["ruff", "format", "--no-cache", "--check", "."], id="format"),
        pytest.param(["mypy"], id="types"),
        pytest.param(["lint-imports", "--no-cache"], id="imports"),
    ],
)
def test_the_house_is_clean(command: list[str]) -> None:
    """Lint, format, strict types and the direction of imports, tests included."""
    program = Path(sysconfig.get_path("scripts")) / command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
