"""uvicorn's connection, with limits and parts of HTTP/1.1 that uvicorn lacks.

Limits: the time in which a request arrives, and the size of its head, its trailers and the framing
of its body. HTTP: `Upgrade` is ignored, `Expect` follows RFC 9110, every form of a request target
has a path, and refused requests are counted and answered in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from syncd.http_server.framing import MAX_TARGET_BYTES, Framing, RequestRefusedError, refusal
from syncd.http_server.limits import ListenerConnections
from syncd.http_server.output import ResponseOutput
from syncd.http_server.refusals import Refusals, client_of
from syncd.http_server.targets import foreign_protocol, from_absolute_form

# The most requests that one connection may send before the first of them is answered.
MAX_PIPELINED = 64
# uvicorn's own setting, and spaces around the size of a chunk (RFC 9112, 7.1.1).
_LENIENCIES = {"lenient_data_after_close": True, "lenient_spaces_after_chunk_size": True}
# The headers that this module and `client_of` read.
_HEADERS_READ = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"transfer-encoding",
        b"x-forwarded-for",
    }
)

# uvicorn logs each request that is no HTTP, and any client may send many of them.
_log = logging.getLogger("uvicorn.error.connections")
_log.setLevel(logging.ERROR)


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, and the objects that the connections of one server share."""

    limiter: ListenerConnections
    refusals: Refusals
    # None: all headers are read.
    headers_read: frozenset[bytes] | None = None


# The part of a message that arrives next. No Enum: access to its members is slow.
_START, _HEAD, _BODY = 0, 1, 2
# The head is complete, and httptools treats the body as another protocol.
_UPGRADE = 3


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's connection. The limiter has it while the daemon waits for the client."""

    config: ServerConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limiter = self.config.limiter
        read = self.config.headers_read
        self._headers_read = None if read is None else read | _HEADERS_READ
        self.logger = _log
        self.parser.set_dangerous_leniencies(**_LENIENCIES)
        self._part = _START
        self._framing = Framing()
        self._unanswered: list[RequestResponseCycle] = []
        # The refusal that ends this connection, as soon as earlier requests are answered.
        self._last_answer: bytes | None = None

    @property
    def is_answering(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self._unanswered)

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._output = ResponseOutput(transport, self.loop)
        self._limiter.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._limiter.remove(self)
        # uvicorn notifies only the last request; the others would write to a closed connection.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._last_answer is not None:
            return  # data after a refused request has no meaning
        self._unset_keepalive_if_required()
        body_bytes = self._framing.body
        try:
            self._parse(data)
            if self._part != _START:
                is_head, of_bodies = self._part == _HEAD, self._framing.body - body_bytes
                self._framing.end_read(len(data), of_bodies, is_head=is_head)
                self._limiter.receive_part(self)
        except RequestRefusedError as error:
            self._refuse(error.code, error.reason)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, RequestRefusedError):
                self._refuse(cause.code, cause.reason)
            else:
                self._refuse(400, "not HTTP/1.1", foreign_protocol(data))

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn drops the answer
        """Answer the complete requests after the client has stopped sending; it may still read."""
        if self._part == _BODY and not self.cycle.response_started:
            self._drop_arriving()
        if not self._unanswered or self._unanswered[-1].response_started:
            return False
        if self._last_answer is None:
            self._last_answer = b""
        return True

    def pause_writing(self) -> None:
        """Wait for a client that does not read, unless the wait has begun already."""
        super().pause_writing()
        if self not in self._limiter:
            self._limiter.enter(self)

    def resume_writing(self) -> None:
        """Continue, because the client reads."""
        super().resume_writing()
        self._leave_if_client_is_done()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Stop the parser at requests that would wait too long for an answer."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RequestRefusedError(503, "too many requests at once on one connection")
        self._part = _HEAD
        self._framing.begin_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header that is read; a trailer is only counted, and never becomes a header."""
        if self._part != _HEAD:
            self._framing.add_trailer(name, value)
            return
        if self._headers_read is None or name.lower() in self._headers_read:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Start the time limit of the body."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise RequestRefusedError(400, "CONNECT, but this server is no proxy")
            self._part = _UPGRADE
            return
        if len(self.url) > MAX_TARGET_BYTES:
            raise RequestRefusedError(431, "the head of a request is too large")
        if self.url[:1] != b"/":
            self.url = from_absolute_form(self.url, self.headers)
        if self.expect_100_continue and self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, 10.1.1
        # First, because uvicorn may refuse the target, and then no body arrives.
        super().on_headers_complete()
        self._part = _BODY
        self._framing.begin_body(is_first=not self._unanswered)
        self.cycle.transport = self._output  # type: ignore[assignment]  # the part that it uses
        self._unanswered.append(self.cycle)
        self._limiter.expect_rest(self)

    def on_chunk_header(self) -> None:
        """Count the chunks of a body."""
        self._framing.add_chunk()

    def on_body(self, body: bytes) -> None:
        """Count the bytes of a body without its framing."""
        self._framing.body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop waiting for the client; if the request is answered, wait for the next one."""
        if self._part == _UPGRADE:
            return
        self._part = _START
        super().on_message_complete()
        self._leave_if_client_is_done()

    # Called by the application and by the limiter.

    def on_response_complete(self) -> None:
        """Wait for the next request, for the client to read, or for the rest of this request."""
        self._output.flush()  # the answer to a HEAD has no body
        super().on_response_complete()
        self._unanswered = [one for one in self._unanswered if not one.response_complete]
        if self._last_answer is not None:
            self._end_if_answered()
        elif self.cycle.response_complete:
            if self._part == _START:
                self._limiter.enter(self)
            else:
                self._limiter.expect_rest(self)

    def end_late(self) -> None:
        """Refuse the request that did not arrive in time, and close the connection."""
        is_body = self._part == _BODY
        is_answered = self._part == _START or (is_body and self.cycle.response_started)
        if self.transport.is_closing() or is_answered:
            self.close()
        elif is_body:
            self._refuse(408, "a body did not arrive in time")
        else:
            self._refuse(408, "a request did not arrive in time")

    def close(self) -> None:
        """Close the connection; abort it if the client does not read its answer either."""
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.close()

    def _parse(self, data: bytes) -> None:
        """Feed the parser, and ignore `Upgrade`: this server uses only HTTP/1.1 (RFC 9110, 7.8).

        httptools treats the data after the head as another protocol. So a new parser gets the
        request again, without that header.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                version = self.parser.get_http_version().encode()
                first = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)
                rest = [b"%b: %b" % one for one in self.headers if one[0] != b"upgrade"]
                data = b"\r\n".join([first, *rest, b"", data[upgrade.args[0] :]])
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(**_LENIENCIES)
            else:
                return

    def _leave_if_client_is_done(self) -> None:
        cycle = self.cycle
        if not (cycle.more_body or cycle.response_complete or self.flow.write_paused):
            self._limiter.leave(self)

    def _refuse(self, code: int, reason: str, hint: str = "") -> None:
        """Answer this request with `code`, after all earlier ones, and close the connection."""
        headers = self.headers or []
        if self._part == _BODY:
            if self.cycle.response_started:
                # The request is answered and counted; only its rest is refused.
                self._last_answer = b""
                self._end_if_answered()
                return
            self._drop_arriving()
        self._part = _START
        self.config.refusals.count(code, reason, client_of(self.client, headers), hint)
        self._last_answer = refusal(code, reason)
        if self.flow.write_paused:
            self._limiter.enter(self)
        else:
            self._limiter.leave(self)
        self._end_if_answered()

    def _drop_arriving(self) -> None:
        """Drop the request whose body arrives now, and stop its application."""
        cycle = self.cycle
        self._unanswered.remove(cycle)
        self.pipeline = deque(one for one in self.pipeline if one[0] is not cycle)
        cycle.disconnected = True
        cycle.message_event.set()
        self._part = _START

    def _end_if_answered(self) -> None:
        if not self._unanswered and self._last_answer is not None:
            if not self.transport.is_closing():
                self.transport.write(self._last_answer)
                self.transport.close()
            self._limiter.enter(self)
