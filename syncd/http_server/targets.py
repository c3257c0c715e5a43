"""Handles other forms of request targets (RFC 9112, 3.2), and bytes that are no HTTP."""

from __future__ import annotations

from typing import cast

import httptools

_PROXY_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_TLS_HANDSHAKE = b"\x16\x03"


def from_absolute_form(target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the path and query of `http://host/path?query`; its host joins `Host`.

    `*` stays as it is. Raises HttpParserInvalidURLError for anything else.
    """
    url = httptools.parse_url(target)
    # The types of httptools claim that every URL has a host and a path.
    host, port, path, query = cast(
        "tuple[bytes | None, int | None, bytes | None, bytes | None]",
        (url.host, url.port, url.path, url.query),
    )
    if host is not None:
        host = b"[%b]" % host if b":" in host else host
        named = (b"host", host if port is None else b"%b:%d" % (host, port))
        if named not in headers:
            headers.append(named)
    return (path or b"/") + (b"" if query is None else b"?" + query)


def foreign_protocol(data: bytes) -> str:
    """Return a hint about bytes of another protocol, or an empty text."""
    if data.startswith(_TLS_HANDSHAKE):
        return "the client uses TLS; configure it to use http, or put the web server in front"
    if data.startswith((b"PROXY ", _PROXY_V2)):
        return "the proxy sends the PROXY protocol; turn that off for this upstream"
    if data.startswith(b"PRI * HTTP/2"):
        return "the client uses HTTP/2 without negotiation; configure the proxy to use HTTP/1.1"
    return ""
