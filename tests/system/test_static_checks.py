"""Lint, format, types, the direction of imports, and the length of files."""

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


def test_only_one_module_prints() -> None:
    """It makes text of others safe for a terminal."""
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


def test_no_file_has_more_than_300_lines() -> None:
    """A longer file has more than one duty."""
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
def test_the_tools_find_nothing(command: list[str]) -> None:
    """In the package and in the tests."""
    program = Path(sysconfig.get_path("scripts")) / command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
