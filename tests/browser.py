"""Debian's Chromium, driven by playwright-core, with axe-core at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, json
from shops import NODE_MODULES

CHROMIUM = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is missing")
needs_playwright = pytest.mark.skipif(
    shutil.which("node") is None
    or not all((NODE_MODULES / name).exists() for name in ("playwright-core", "axe-core")),
    reason="Node, or playwright-core and axe-core as .ci/run installs them, are missing",
)


class Seen(Struct, frozen=True):
    """The results of a script: `found`, the requests `asked`, and the console's `faults`."""

    found: Any
    asked: list[str]
    faults: list[str]


def browse(url: str, script: str, **options: Any) -> Seen:
    """Open a page and run a script on it, which can use `page` and `axe`; see browser.cjs.

    `options` are those of playwright's `browser.newPage`.
    """
    job = {"chromium": CHROMIUM, "url": url, "script": script, "options": options}
    done = subprocess.run(
        ["node", str(Path(__file__).with_suffix(".cjs"))],
        input=json.encode(job),
        env=os.environ | {"NODE_PATH": str(NODE_MODULES)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.decode(done.stdout, type=Seen)
