"""Bodies of deliveries, each with the expected result; see tests/payloads/README.md."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from msgspec import json

PAYLOADS = sorted(Path(__file__).parent.glob("*.json"))


def body_of(payload: dict[str, Any]) -> bytes:
    """Return the bytes that are posted."""
    if "base64" in payload:
        return base64.b64decode(payload["base64"])
    if "text" in payload:
        return bytes(payload["text"], "utf-8")
    return json.encode(payload["body"])


def body_at(path: Path) -> bytes:
    """Return the bytes that one of the files posts."""
    return body_of(json.decode(path.read_bytes()))
