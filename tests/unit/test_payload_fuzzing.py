"""Any bytes pass signature check, parser, merge rules and SQLite without a crash.

`tests/fuzzing/atheris_run.py` runs the same check guided by coverage.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fuzzing.one_body import Mirror
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from payloads import PAYLOADS, body_at

WHOLE = [body_at(path) for path in PAYLOADS]


@pytest.fixture(scope="module")
def mirror() -> Iterator[Mirror]:
    """Give a mirror in memory."""
    one = Mirror()
    yield one
    one.close()


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from([71, 72, 48_001, "48001", 2**63, -1, "item_variant", "in_stock"])
    | st.datetimes().map(lambda moment: moment.isoformat() + "Z")
    | st.sampled_from(["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    [
        *("id", "item", "item_id", "object", "object_id", "object_type", "uuid", "action"),
        *("timestamp", "name", "color", "size", "availability"),
    ]
)
actions = st.sampled_from(["item-variant-availability-updated", "item-variant-added", "x"])
objects = st.dictionaries(names, values, max_size=8)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "id": values,
        "object": values,
        "event": st.builds(lambda one, action: {**one, "action": action}, objects, actions)
        | values,
        "data": objects | values,
    },
).map(json.encode)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Return a documented body with some bytes cut out and others put in."""
    body = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = start + draw(st.integers(0, 12))
        body[start:end] = draw(
            st.binary(max_size=6)
            | st.sampled_from([b"null", b"{}", b"[]", b'"', b"\\ud800", b"1e400", b"9" * 30])
        )
    return bytes(body)


@given(header=st.binary(max_size=200), sent=st.lists(bodies | mangled() | st.binary(), max_size=3))
def test_any_bytes_end_in_one_outcome(mirror: Mirror, header: bytes, sent: list[bytes]) -> None:
    """A second copy is a duplicate, and the feed agrees with the table."""
    mirror.check(header, *sent)


def test_the_payload_files_work_in_any_order(mirror: Mirror) -> None:
    """All files, in their order and in reverse."""
    mirror.check(b"0" * 64, *WHOLE)
    mirror.check(b"0" * 64, *reversed(WHOLE))
