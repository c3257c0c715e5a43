"""Answers of a hostile or broken Dreamship take bounded memory and do not block the loop.

The real client reads each over a real socket, in a separate process, and its memory is measured.
`load.answers` defines the answers and prints the figures.
"""

from __future__ import annotations

import pytest
from load.answers import measure

pytestmark = pytest.mark.long

# The unit may use 384 MB before it is slowed down. Measured: 58 MB at most.
MAX_MORE_MB = 130


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("1 GB in gzip in gzip", "the answer is encoded 2 times"),
        ("1 GB in gzip", "more than 8,388,608 bytes"),
        ("250,000 variants", "more than 10,000 variants"),
        ("20 rows with 50,000 variants", "more than 1,000,000 values"),
        ("31 MB of {}", "more than 1,000,000 values"),
        ("31 MB of {} as variants", "more than 1,000,000 values"),
        ("31 MB of {} as rows", "more than 10,000 rows"),
        ("31 MB of [[[]]]", "more than 1,000,000 values"),
        ("31 MB of members", "more than 1,000,000 values"),
        ("1,000,000 rows", "more than 10,000 rows"),
        ("nested 30 MB deep", "no JSON object"),
        ("31 MB that is no JSON", "no JSON object"),
        ("chunks of one byte", "more than 100,000 pieces"),
        ("endless white space", "more than 8,388,608 bytes"),
    ],
)
def test_an_answer_past_a_bound_is_invalid_and_takes_little_memory(name: str, error: str) -> None:
    """It changes nothing, and the fault names the bound."""
    cost = measure(name)
    assert cost["error"].startswith("SourceAnswerInvalid: ")
    assert error in cost["error"]
    assert cost["more_mb"] < MAX_MORE_MB


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("503 with 31 MB", "SourceUnreachable: Dreamship answered 503"),
        ("404 with 31 MB", "SourceUnreachable: items/7/ was answered 404, not in Dreamship's form"),
        ("429 with 1 GB in gzip", "SourceThrottled: "),
    ],
)
def test_a_status_counts_with_any_body(name: str, error: str) -> None:
    """The body is not read: a 404 with an endless body is not Dreamship's own."""
    cost = measure(name)
    assert cost["error"].startswith(error)
    assert cost["more_mb"] < MAX_MORE_MB


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("10,000 variants", 10_000),
        ("a page as large as any", 100),
        ("a page as large as any, with NaN", 100),
        ("30 variants named with 1 MB", 1),
        ("480 variants named with 60 KB", 1),
        ("31 MB of 1,1,1", 1),
        ("one number of 30 MB", 1),
        ("one text of 30 MB of escapes", 1),
    ],
)
def test_the_largest_answers_do_not_block_the_loop(name: str, pieces: int) -> None:
    """It stops for a small part of the time that the answer takes."""
    cost = measure(name)
    assert (cost["error"], cost["pieces"]) == ("", pieces)
    assert cost["more_mb"] < MAX_MORE_MB
    assert cost["gap_ms"] < 100 + 300 * cost["seconds"]
