"""Single checks of `doctor`: what passes, what warns and what fails."""

from __future__ import annotations

import stat

import pytest

from syncd.cli.doctor_checks import (
    Answer,
    FileInfo,
    check_access,
    check_connections,
    check_delivery,
    check_listings,
)
from syncd.core.lease import WAITING
from syncd.core.snapshots import DeadListings


def test_an_unknown_connection_limit_is_a_warning() -> None:
    """It does not pass."""
    assert check_connections(None, 500, 1100, is_running=True).verdict == "warn"


FOLDER = FileInfo("/var/lib/syncd", stat.S_IFDIR | 0o750, "syncd")
FILE = FileInfo("/var/lib/syncd/availability.db", stat.S_IFREG | 0o640, "syncd")


@pytest.mark.parametrize(
    ("folder", "file", "result"),
    [
        (0o750, 0o640, "pass"),
        (0o755, 0o644, "pass"),
        (0o700, 0o640, "fail"),
        (0o750, 0o600, "fail"),
        (0o750, 0o660, "warn"),
    ],
)
def test_access_is_checked_for_the_group(folder: int, file: int, result: str) -> None:
    """Execute on the folders, read on the files, write on none."""
    seen_folder = FileInfo(FOLDER.path, stat.S_IFDIR | folder, "syncd")
    seen_file = FileInfo(FILE.path, stat.S_IFREG | file, "syncd")
    assert check_access([seen_folder], [seen_file]).verdict == result
    assert check_access([FOLDER], []).verdict == "warn"


@pytest.mark.parametrize("code", [204, 308, 400, 403, 404, 413, 500, 503, 504])
def test_every_unexpected_status_code_fails_with_a_hint(code: int) -> None:
    """For the answer of any server."""
    for error in ("", "in our words"):
        finding = check_delivery(Answer(code, 200, error=error, server="nginx"))
        assert (finding.verdict, bool(finding.hint)) == ("fail", True)


def test_a_waiting_host_is_named_and_not_its_disk() -> None:
    """It answers 503 too, but a person has to look at the proxy."""
    finding = check_delivery(Answer(503, 200, error=WAITING))
    assert "the URL leads to the waiting host" in finding.hint
    assert "cannot store" in check_delivery(Answer(503, 200, error="not durable")).hint


def test_an_empty_mirror_says_nothing_about_skus() -> None:
    """A mirror without variants knows no SKU, so the check does not pass."""
    nothing = DeadListings(0, ())
    assert check_listings(2, nothing, None, is_filled=False).verdict == "warn"
    assert check_listings(1, nothing, None, is_filled=True).detail == "1 SKU"
