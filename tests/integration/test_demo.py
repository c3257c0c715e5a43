"""`syncd demo`: the main job in one command, without any set-up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import json

if TYPE_CHECKING:
    from conftest import Site

RESULT_KEYS = [
    "differences",
    "variants",
    "changes",
    "sent",
    "lost",
    "doubled",
    "repaired",
    "repaired_s",
    "reconcile",
    "seconds",
    "database",
]


def test_the_demo_ends_with_no_difference(idle: Site) -> None:
    """Some deliveries were lost, syncd repaired them by itself, and a reconcile found no more."""
    done = idle.syncd(
        "demo", "--seconds", "6", "--json", config=False, environ={"TMPDIR": str(idle.folder)}
    )
    assert done.returncode == 0, done.stderr
    result = json.decode(done.stdout)
    assert list(result) == RESULT_KEYS
    assert result["differences"] == 0
    assert result["lost"] > 0
    assert result["changes"] + result["doubled"] == result["sent"] + result["lost"]
    assert result["reconcile"]["result"] == "complete"
    assert result["repaired"] > 0
    assert result["reconcile"]["changed"] == 0
    for phase in ("filling", "delivering", "outage", "repairing", "checking", "comparing"):
        assert f"{phase}: " in done.stderr
    database = Path(result["database"])
    # The folder stays for inspection, and the daemon that wrote it has ended.
    idle.mirror = database
    assert idle.rows("SELECT count(*) AS n FROM availability")[0]["n"] >= result["variants"]
    assert "stopped" in (database.parent / "daemon.log").read_text()
