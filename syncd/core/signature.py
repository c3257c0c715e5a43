"""Verifies that a body is signed with one of our keys: on its raw bytes, before parsing.

Dreamship sends `X-Dreamship-Signature`: one hex HMAC-SHA256 of the raw body for each api key of
the account, comma separated (Dreamship's page "Signature Verification").
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

HEADER = "X-Dreamship-Signature"
# The texts of a 401. `doctor` reads them: a proxy causes each in a different way.
MISSING = f"no {HEADER}"
INVALID = f"no valid segment in {HEADER}"

# An account has a few keys. A header with more segments does not come from Dreamship. Comparing
# each segment with each key would let an unauthenticated sender use our processor time.
MAX_SEGMENTS = 32
# Empty elements of a list are skipped (RFC 9110, 5.6.1.2), up to this many elements.
_MAX_ELEMENTS = 1024

_SEGMENT = re.compile(rb"(?:^|,)\s*[0-9a-fA-F]{64}\s*(?:,|$)")


def sign(body: bytes, keys: Sequence[str]) -> str:
    """Return the header that Dreamship sends for `body` with these api keys."""
    return ",".join(hmac.digest(key.encode(), body, "sha256").hex() for key in keys)


def has_signature_form(header: bytes | None) -> bool:
    """Return whether a header has the form of a signature, of any key."""
    return header is not None and _SEGMENT.search(header) is not None


def is_authentic(body: bytes, header: bytes | None, keys: Sequence[str]) -> bool:
    """Return whether any segment of `header` is the signature of `body` under any of `keys`.

    Each segment is compared with each key in constant time, also after a match. Never raises, for
    any header.
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
