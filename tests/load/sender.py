"""A sender of distinct signed deliveries; it repeats each one until the answer is 200.

python tests/load/sender.py --port 8787 --key KEY --report FILE [--connections 16]

On SIGTERM it begins no new delivery, repeats the rest until all are answered, and writes the
report; it ends by itself after `--longest` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import ssl
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop
from msgspec import json

if not __package__:
    # Started by its path; a test finds the package through pytest's `pythonpath`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from load.report import Accepted, Report
from syncd.core.signature import HEADER, sign

PATH = "/webhooks/dreamship"
# Dreamship waits this long for an answer.
ANSWER_S = 30.0
RETRY_S = (0.05, 0.5)
# No simulated source has ids from here on.
FIRST_VARIANT = 1_000_000
VARIANTS_PER_ITEM = 20

Body = tuple[Accepted, bytes]


class Sender:
    """Sends deliveries about `variants` variants on `connections` connections."""

    def __init__(
        self,
        port: int,
        key: str,
        *,
        connections: int,
        variants: int,
        per_second: float | None,
        seed: int,
        trust: Path | None = None,
    ) -> None:
        self.report = Report()
        self._statuses: Counter[str] = Counter()
        self._address = ("127.0.0.1", port)
        self._tls = None if trust is None else ssl.create_default_context(cafile=trust)
        self._key = key
        self._connections = connections
        self._variants = variants
        self._pause_s = 0.0 if per_second is None else connections / per_second
        self._chance = random.Random(seed)
        self._number = 0
        self._at = datetime.now(UTC)
        self._is_over = False
        self._again: list[tuple[float, Body]] = []

    def finish(self) -> None:
        """Begin no new delivery."""
        self._is_over = True

    async def run(self) -> Report:
        """Send until `finish`; return the report once all deliveries are answered 200."""
        began_s = time.monotonic()
        await asyncio.gather(*(self._send_all() for _ in range(self._connections)))
        self.report.seconds = time.monotonic() - began_s
        self.report.statuses = dict(self._statuses)
        return self.report

    async def _send_all(self) -> None:
        connection = _Connection(self._address, self._tls)
        try:
            while (body := await self._next()) is not None:
                await self._send(connection, body)
                if self._pause_s:
                    await asyncio.sleep(self._pause_s * self._chance.uniform(0.5, 1.5))
        finally:
            connection.close()

    async def _next(self) -> Body | None:
        """Return the next body: a repeated one if it is due, else a new one; None at the end."""
        while True:
            if self._again and self._again[0][0] <= time.monotonic():
                return self._again.pop(0)[1]
            if not self._is_over and len(self._again) < self._connections:
                return self._new()
            if not self._again:
                return None
            await asyncio.sleep(0.01)

    def _new(self) -> Body:
        self._number += 1
        variant_id = FIRST_VARIANT + self._chance.randrange(self._variants)
        # Distinct times, so that the latest delivery is known.
        self._at = max(datetime.now(UTC), self._at + timedelta(microseconds=1))
        delivery = Accepted(
            event_id=f"{self._chance.getrandbits(64):016x}-{self._number}",
            variant_id=variant_id,
            value=f"{self._number} left",
            event_at=self._at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            outcome="",
        )
        return delivery, body_of(delivery)

    async def _send(self, connection: _Connection, body: Body) -> None:
        delivery, content = body
        began_s, report = time.monotonic(), self.report
        is_reused, status, answer = connection.is_open, 0, b""
        try:
            async with asyncio.timeout(ANSWER_S):
                status, answer = await connection.post(content, sign(content, (self._key,)))
        except ConnectionRefusedError:
            report.refused += 1
        except (OSError, EOFError):
            if is_reused:
                report.raced += 1
            else:
                report.reset += 1
        report.longest_wait_s = max(report.longest_wait_s, time.monotonic() - began_s)
        if status:
            self._statuses[str(status)] += 1
        if status == 200:
            outcome = json.decode(answer)["outcome"]
            report.accepted.append(
                Accepted(
                    delivery.event_id,
                    delivery.variant_id,
                    delivery.value,
                    delivery.event_at,
                    outcome,
                )
            )
            return
        connection.close()
        # A raced request is repeated at once, like HTTP clients do; other ones after a while.
        wait_s = 0.0 if not status and is_reused else self._chance.uniform(*RETRY_S)
        self._again.append((time.monotonic() + wait_s, body))
        self._again.sort(key=lambda one: one[0])


class _Connection:
    """One persistent connection; opened if it is needed."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self._address = address
        self._tls = tls
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection was used before and is still open."""
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        return self._streams is not None

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def post(self, body: bytes, signature: str) -> tuple[int, bytes]:
        """Return status and body of the answer; raises OSError or EOFError without an answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, ssl=self._tls)
        reader, writer = self._streams
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{HEADER}: {signature}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n", 1)[0])
        answer = await reader.readexactly(length)
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12]), answer


def body_of(delivery: Accepted) -> bytes:
    """Return the documented body."""
    return json.encode(
        {
            "id": delivery.variant_id,
            "object": "item_variant",
            "event": {
                "uuid": delivery.event_id,
                "object_id": delivery.variant_id,
                "object_type": "item_variant",
                "action": "item-variant-availability-updated",
                "message": "Changed under load",
                "timestamp": delivery.event_at,
                "user": "System",
            },
            "data": {
                "id": delivery.variant_id,
                "item": delivery.variant_id // VARIANTS_PER_ITEM,
                "name": "Black / M",
                "color": {"id": 1, "name": "Black", "primary_hex": "#111"},
                "size": {"id": 1, "name": "M"},
                "availability": delivery.value,
                "cost": "9.50",
            },
        }
    )


async def _send(options: argparse.Namespace) -> Report:
    sender = Sender(
        options.port,
        options.key,
        connections=options.connections,
        variants=options.variants,
        per_second=options.per_second,
        seed=options.seed,
        trust=options.trust,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sender.finish)
    print("sending", flush=True)
    async with asyncio.timeout(options.longest):
        return await sender.run()


def _main(options: argparse.Namespace) -> None:
    report = uvloop.run(_send(options))
    # Written atomically.
    part: Path = options.report.with_suffix(".part")
    part.write_bytes(json.encode(report))
    part.rename(options.report)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--variants", type=int, default=200)
    parser.add_argument("--per-second", type=float, help="the most deliveries")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trust", type=Path, help="send with TLS, and trust this certificate")
    parser.add_argument("--longest", type=float, default=600.0, help="seconds")
    return parser.parse_args()


if __name__ == "__main__":
    _main(_options())
