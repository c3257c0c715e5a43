"""Errors of Dreamship itself, and errors of a gateway in front of it, are distinguished."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.dreamship.answer_errors import error_of
from syncd.errors import (
    SourceAnswerInvalid,
    SourceGone,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def own(status: int, key: str = "some_key") -> dict[str, Any]:
    return {"error": {"key": key, "status_code": status, "message": "Some words."}}


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (404, own(404, "not_found"), SourceGone),
        (404, {"error": {"key": "not_found", "message": "Not found."}}, SourceGone),
        (404, {"detail": "Not found."}, SourceGone),
        (404, {"detail": "No Item matches the given query."}, SourceGone),
        (404, {"detail": "Invalid page."}, SourceGone),
        (410, own(410, "gone"), SourceGone),
        (410, {"detail": "Not found."}, SourceGone),
        (401, own(401, "not_authenticated"), SourceRefused),
        (403, own(403, "permission_denied"), SourceRefused),
        (403, {"detail": "You do not have permission to perform this action."}, SourceRefused),
        (401, {"detail": "Invalid token."}, SourceRefused),
    ],
)
def test_an_error_in_dreamships_own_format_is_final(
    status: int, document: dict[str, Any], expected: type[Exception]
) -> None:
    """An error object of Dreamship, or a sentence of Django REST framework."""
    assert type(error_of("items/5/", status, {}, document, NOW)) is expected


@pytest.mark.parametrize("status", [401, 403, 404, 410])
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(None, id="HTML, plain text or nothing"),
        pytest.param({}, id="an empty object"),
        pytest.param({"message": "no Route matched with those values"}, id="Kong"),
        pytest.param({"message": "Missing Authentication Token"}, id="AWS API Gateway"),
        pytest.param({"message": "Forbidden"}, id="AWS WAF"),
        pytest.param({"detail": "Not Found"}, id="FastAPI, a missing route"),
        pytest.param({"detail": "Not authenticated"}, id="FastAPI, a missing key"),
        pytest.param({"status": 404, "error": "Not Found", "path": "/v1/items/5/"}, id="Spring"),
        pytest.param({"statusCode": 404, "message": "Resource not found"}, id="Azure"),
        pytest.param({"error": {"code": 404, "message": "x", "status": "NOT_FOUND"}}, id="Google"),
        pytest.param({"fault": {"faultstring": "x", "detail": {"errorcode": "x"}}}, id="Apigee"),
        pytest.param({"error": "Requested endpoint is forbidden"}, id="Tyk"),
        pytest.param({"success": False, "errors": [{"code": 1020}]}, id="Cloudflare"),
        pytest.param({"error": {"root_cause": [], "type": "x"}, "status": 404}, id="Elasticsearch"),
        pytest.param(own(200), id="another status"),
        pytest.param({"error": {"key": "", "message": "x"}}, id="an empty key"),
        pytest.param({"error": {"key": 7}}, id="a key that is no text"),
        pytest.param({"detail": {"detail": "Not found."}}, id="a detail that is no text"),
    ],
)
def test_an_error_of_a_gateway_is_retried(status: int, document: dict[str, Any] | None) -> None:
    """It neither refuses the key nor removes an item, since it may pass by itself."""
    found = error_of("items/5/", status, {}, document, NOW)
    assert type(found) is SourceUnreachable
    assert "a proxy in front of Dreamship" in found.message
    assert found.hint


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 410, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "retry_after", ["17", format_datetime(NOW + timedelta(seconds=17), usegmt=True)]
)
def test_retry_after_counts_with_every_status(status: int, retry_after: str) -> None:
    """An answer with Retry-After neither refuses the key nor says that an item is gone."""
    headers = {"retry-after": retry_after, "date": format_datetime(NOW, usegmt=True)}
    found = error_of("items/5/", status, headers, own(status), NOW)
    assert found.wait_s == 17
    assert isinstance(found, SourceThrottled | SourceUnreachable | SourceAnswerInvalid)


@given(
    status=st.integers(201, 599),
    document=st.none()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "detail", "message", "key", "status_code", "x"]), inner
            )
        ),
    ).filter(lambda value: isinstance(value, dict)),
    retry_after=st.text(max_size=12),
)
def test_every_error_answer_maps_to_one_error(status: int, document: Any, retry_after: str) -> None:
    """The error has one line, and a 404 in an unknown format removes nothing."""
    found = error_of("items/5/", status, {"retry-after": retry_after}, document, NOW)
    assert len(found.message.splitlines()) == 1
    if not isinstance(document, dict) or not {"error", "detail"} & document.keys():
        assert not isinstance(found, SourceGone | SourceRefused)
