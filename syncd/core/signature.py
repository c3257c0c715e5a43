"""Is this body signed with one of our keys? Decided over raw bytes, before anything is parsed.

Dreamship sends `X-Dreamship-Signature`: one hex HMAC-SHA256 of the raw body for each api key of
the account, comma separated (page "Signature Verification").
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

HEADER = "X-Dreamship-Signature"
# What a 401 says; `doctor` reads it, for what stands in front is at fault in two different ways.
MISSING = f"no {HEADER}"
INVALID = f"no valid segment in {HEADER}"

# An account has a handful of keys. A header with more segments than this is not Dreamship's, and
# comparing every one of them against every key would let a stranger buy our time cheaply.
MAX_SEGMENTS = 32
# Empty elements of a list count for nothing (RFC 9110, 5.6.1.2), within reason.
_MAX_ELEMENTS = 1024

_SEGMENT = re.compile(rb"(?:^|,)\s*[0-9a-fA-F]{64}\s*(?:,|$)")


def sign(body: bytes, keys: Sequence[str]) -> str:
    """Return the header value Dreamship would send for `body` with these api keys."""
    return ",".join(hmac.digest(key.encode(), body, "sha256").hex() for key in keys)


def looks_signed(header: bytes | None) -> bool:
    """Tell whether a header has the form of Dreamship's, whatever key it is of."""
    return header is not None and _SEGMENT.search(header) is not None


def is_authentic(body: bytes, header: bytes | None, keys: Sequence[str]) -> bool:
    """Tell whether any segment of `header` is the signature of `body` under any of `keys`.

    Every segment is compared with every key in constant time, whatever matched before. Never
    raises: a header that is no signature is simply not one.
    """
    if not header:
        return False
    elements = header.split(b",", _MAX_ELEMENTS)[:_MAX_ELEMENTS]
    segments = [one for part in elements if (one := part.strip().lower())][:MAX_SEGMENTS]
    valid = False
    for key in keys:
        expected = hmac.digest(key.encode(), body, "sha256").hex().encode()
        for segment in segments:
            valid |= hmac.compare_digest(expected, segment)
    return valid
