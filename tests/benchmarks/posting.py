"""Posts deliveries from a separate process and checks each answer, which wrk cannot do.

python tests/benchmarks/posting.py URL FILE CONNECTIONS SECONDS    prints the counts as JSON
SECONDS 0: until each delivery of the file was answered once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from msgspec import Struct, field, json

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from syncd.core.signature import HEADER


class Posted(Struct):
    """The answers, and the time that each answer took."""

    seconds: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def per_second(self) -> float:
        """The number of answers in a second."""
        return sum(self.answers.values()) / self.seconds


class _Connection(asyncio.Protocol):
    """Sends the next delivery as soon as the last one was answered."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._sent_s = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a connection's, it is
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or not body.endswith(b"}"):
            return
        self._received = b""
        self._run.took_s.append(time.perf_counter() - self._sent_s)
        self._run.answers[head[9:12].decode() + body.decode()] += 1
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._run.ended(self)

    def _send(self) -> None:
        request = self._run.next()
        if request is None:
            self._transport.close()
            return
        self._sent_s = time.perf_counter()
        self._transport.write(request)


class _Run:
    def __init__(self, url: str, file: Path, seconds: float) -> None:
        self.took_s: list[float] = []
        self.answers: Counter[str] = Counter()
        self._lines = file.open("rb")
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path
        self._until_s = time.perf_counter() + seconds if seconds else None
        self._open: set[_Connection] = set()
        self._done = asyncio.Event()

    async def run(self, connections: int) -> Posted:
        loop, began_s = asyncio.get_running_loop(), time.perf_counter()
        for _ in range(connections):
            _, made = await loop.create_connection(
                lambda: _Connection(self), self._host, self._port
            )
            self._open.add(made)
        await self._done.wait()
        took_ms = sorted(1000 * took_s for took_s in self.took_s)
        return Posted(
            seconds=time.perf_counter() - began_s,
            answers=dict(self.answers),
            p50_ms=took_ms[len(took_ms) // 2],
            p99_ms=took_ms[len(took_ms) * 99 // 100],
            max_ms=took_ms[-1],
        )

    def next(self) -> bytes | None:
        """Return the next request, None at the end."""
        if self._until_s is not None and time.perf_counter() >= self._until_s:
            return None
        line = self._lines.readline().rstrip(b"\n")
        if not line:
            return None
        signature, body = line.split(b"\t", 1)
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{HEADER}: "
        )
        return head.encode() + signature + b"\r\n\r\n" + body

    def ended(self, connection: _Connection) -> None:
        """Record the end of a connection; the last one ends the run."""
        self._open.discard(connection)
        if not self._open:
            self._done.set()


async def _main() -> None:
    url, file, connections, seconds = sys.argv[1:]
    posted = await _Run(url, Path(file), float(seconds)).run(int(connections))
    print(json.encode(posted).decode())


if __name__ == "__main__":
    uvloop.run(_main())
