"""Turns an answer other than 200 into an error, and checks whether Dreamship itself sent it.

Proxies, gateways and firewalls answer instead of Dreamship: with a 404 for a path without a route,
a 403 of a bot check, or a 503 of a load balancer. Only Dreamship itself can say that an item does
not exist or that it refuses a key. Its own answers have one of these forms:

    {"error": {"key": "not_found", "status_code": 404, "message": "…"}}    Dreamship's own
    {"detail": "Not found."}                                               Django REST framework's
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from syncd.core.model import JsonObject
from syncd.core.rate_limit import wait_in_message
from syncd.core.timestamps import parse_http_date
from syncd.errors import (
    SourceAnswerInvalid,
    SourceError,
    SourceGone,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
)

# The longest message of an answer in logs, in the status and in the history of sweeps.
MAX_MESSAGE_CHARS = 200

_GONE = frozenset({404, 410})
_REFUSED = frozenset({401, 403})
_THROTTLED = 429
_REDIRECTS = range(300, 400)
# The exact messages of Django REST framework for a missing object. FastAPI and others answer
# {"detail": "Not Found"} for a path without a route.
_DRF_NOT_FOUND = re.compile(r"Not found\.|No \S.* matches the given query\.|Invalid page.*\.")


def error_of(
    path: str,
    status: int,
    headers: Mapping[str, str],
    document: JsonObject | None,
    now: datetime,
) -> SourceError:
    """Return the error for an answer with this status.

    `document`: the JSON object in its body, None for another body. `headers` have names in lower
    case. `now`: this host's time, for a `Retry-After` date without a `Date` header.
    """
    message = _message(document)
    detail = f": {in_short(message)}" if message else ""
    wait_s = _wait_s(headers, message if status == _THROTTLED else None, now)
    if status == _THROTTLED:
        return SourceThrottled(f"throttled on {path}{detail}", wait_s=wait_s)
    # An answer with a wait neither refuses the key nor reports that an item is gone.
    is_final = wait_s is None and is_dreamships_own(status, document)
    if status in _REFUSED and is_final:
        return SourceRefused(
            f"Dreamship answered {status} for {path}{detail}",
            hint="the api key is wrong, revoked or lacks permission; "
            "see https://app.dreamship.com/app/settings/api/",
        )
    if status in _GONE and is_final:
        return SourceGone(f"Dreamship has no {path}", hint="check dreamship.base_url")
    if status in _GONE | _REFUSED and wait_s is None:
        return SourceUnreachable(
            f"{path} was answered {status}, not in Dreamship's form: a proxy in front of "
            f"Dreamship answered{detail}",
            hint="check dreamship.base_url, and the proxy or firewall between here and Dreamship",
        )
    if status in _REDIRECTS:
        return SourceAnswerInvalid(
            f"Dreamship redirects {path} elsewhere",
            hint="check dreamship.base_url",
            wait_s=wait_s,
        )
    return SourceUnreachable(
        f"Dreamship answered {status} for {path}{detail}",
        hint="it usually recovers by itself",
        wait_s=wait_s,
    )


def is_dreamships_own(status: int, document: JsonObject | None) -> bool:
    """Return whether Dreamship itself, and no gateway, sent this 401, 403, 404 or 410.

    Its own form has a `key`, or the same status; the JSON of a gateway has neither.
    """
    if document is None:
        return False
    error = document.get("error")
    if isinstance(error, dict):
        code, key = error.get("status_code"), error.get("key")
        return str(code) == str(status) or (code is None and isinstance(key, str) and key != "")
    detail = document.get("detail")
    if not isinstance(detail, str):
        return False
    if status in _GONE:
        return _DRF_NOT_FOUND.fullmatch(detail) is not None
    return detail.endswith(".")  # the framework's messages are sentences; FastAPI's are not


def in_short(text: str) -> str:
    """Return foreign text in one line of bounded length."""
    return " ".join(text.split())[:MAX_MESSAGE_CHARS]


def _message(document: JsonObject | None) -> str | None:
    if document is None:
        return None
    error = document.get("error")
    detail = error.get("message") if isinstance(error, dict) else document.get("detail")
    return detail if isinstance(detail, str) else None


def _wait_s(headers: Mapping[str, str], message: Any, now: datetime) -> float | None:
    header = headers.get("retry-after", "").strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    moment = parse_http_date(header)
    if moment is not None:
        # Both times are by Dreamship's clock: this host's clock may differ from it.
        source_at = parse_http_date(headers.get("date")) or now
        return max(0.0, (moment - source_at).total_seconds())
    return wait_in_message(message) if isinstance(message, str) else None
