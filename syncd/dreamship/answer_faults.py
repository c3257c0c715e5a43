"""What an answer other than 200 means, and whether Dreamship itself gave it.

Proxies, gateways and firewalls answer in Dreamship's place: a 404 without a route, a 403 of a bot
check, a 503 of a load balancer. What is absent, and that a key is refused, is believed only from
Dreamship itself, in one of its own forms:

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

# Of what an answer says about a fault; it goes into logs, the status and the history of sweeps.
MAX_SAID_CHARS = 200

_GONE = frozenset({404, 410})
_REFUSED = frozenset({401, 403})
_THROTTLED = 429
_REDIRECTS = range(300, 400)
# Django REST framework's own words for what is not there, to the letter: FastAPI and others answer
# {"detail": "Not Found"} for a path that they do not route.
_DRF_NOT_THERE = re.compile(r"Not found\.|No \S.* matches the given query\.|Invalid page.*\.")


def fault(
    path: str,
    status: int,
    headers: Mapping[str, str],
    document: JsonObject | None,
    now: datetime,
) -> SourceError:
    """Return what an answer with this status means.

    `document`: the JSON object in its body, None for anything else. `headers` are looked up in
    lower case. `now`: this host's moment, for a `Retry-After` date without a `Date` beside it.
    """
    message = _message(document)
    said = f": {in_short(message)}" if message else ""
    wait_s = _wait_s(headers, message if status == _THROTTLED else None, now)
    if status == _THROTTLED:
        return SourceThrottled(f"throttled on {path}{said}", wait_s=wait_s)
    # Whoever asks to come back later neither refuses the key nor says that something is gone.
    is_final = wait_s is None and is_dreamships_own(status, document)
    if status in _REFUSED and is_final:
        return SourceRefused(
            f"Dreamship answered {status} for {path}{said}",
            hint="the api key is wrong, revoked or lacks permission; "
            "see https://app.dreamship.com/app/settings/api/",
        )
    if status in _GONE and is_final:
        return SourceGone(f"Dreamship has no {path}", hint="check dreamship.base_url")
    if status in _GONE | _REFUSED and wait_s is None:
        return SourceUnreachable(
            f"{path} was answered {status}, not in Dreamship's form: something in front of "
            f"Dreamship answered{said}",
            hint="check dreamship.base_url, and the proxy or firewall between here and Dreamship",
        )
    if status in _REDIRECTS:
        return SourceAnswerInvalid(
            f"Dreamship redirects {path} elsewhere",
            hint="check dreamship.base_url",
            wait_s=wait_s,
        )
    return SourceUnreachable(
        f"Dreamship answered {status} for {path}{said}",
        hint="usually passes by itself",
        wait_s=wait_s,
    )


def is_dreamships_own(status: int, document: JsonObject | None) -> bool:
    """Tell whether Dreamship itself, and no gateway, gave this refusal or this absence.

    Its own form names a `key`, or the same status; a gateway's JSON has neither.
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
        return _DRF_NOT_THERE.fullmatch(detail) is not None
    return detail.endswith(".")  # a sentence, as all of the framework's; FastAPI's are none


def in_short(text: str) -> str:
    """Return foreign text in one line of bounded length."""
    return " ".join(text.split())[:MAX_SAID_CHARS]


def _message(document: JsonObject | None) -> str | None:
    if document is None:
        return None
    error = document.get("error")
    said = error.get("message") if isinstance(error, dict) else document.get("detail")
    return said if isinstance(said, str) else None


def _wait_s(headers: Mapping[str, str], message: Any, now: datetime) -> float | None:
    header = headers.get("retry-after", "").strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    moment = parse_http_date(header)
    if moment is not None:
        # Both moments are Dreamship's; ours would bring the difference of two clocks in.
        said_at = parse_http_date(headers.get("date")) or now
        return max(0.0, (moment - said_at).total_seconds())
    return wait_in_message(message) if isinstance(message, str) else None
