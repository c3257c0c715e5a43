"""Answers of a hostile or broken Dreamship, and the cost of reading each of them.

Run as `python -m load.answers [NAME]…` in the folder `tests`; prints one line an answer.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

MB = 1024 * 1024
# One variant in the form that public clients of Dreamship use.
VARIANT: dict[str, Any] = {
    "name": "Red / XL",
    "color": {
        "id": 3,
        "name": "Red",
        "primary_hex": "#ff0000",
        "secondary_hex": None,
        "pattern": None,
        "availability": "in_stock",
    },
    "size": {"id": 4, "name": "XL", "availability": "in_stock"},
    "availability": "in_stock",
    "cost": "12.50",
    "basic_cost": "11.00",
}


class Answer(NamedTuple):
    """One answer: its parts are sent one after the other."""

    parts: Callable[[], Iterator[bytes]]
    what: str = "item"
    is_endless: bool = False


def http(body: bytes, *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return a whole answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*head, "Connection: close", *lines]).encode() + b"\r\n\r\n" + body


def plain(body: Callable[[], bytes], *lines: str, status: str = "200 OK") -> Answer:
    """Return an answer whose body is made for each request."""
    return Answer(lambda: iter([http(body(), *lines, status=status)]))


def of_page(answer: Answer) -> Answer:
    """Return the answer for a page, not for an item."""
    return answer._replace(what="page")


def bomb(layers: int, size: int = 1024 * MB) -> bytes:
    """Return `size` bytes of white space, compressed `layers` times."""
    packing = zlib.compressobj(1, wbits=31)
    blank = b" " * MB
    packed = b"".join(packing.compress(blank) for _ in range(size // MB)) + packing.flush()
    for _ in range(layers - 1):
        packed = gzip.compress(packed, 9)
    return packed


def item(variants: bytes, more: bytes = b"") -> bytes:
    """Return item 7 with these variants."""
    return b'{"id":7,"name":"Mug"%s,"item_variants":[%s]}' % (more, variants)


def listed(rows: bytes) -> bytes:
    """Return a page with these rows."""
    return b'{"paging":{"count":1,"next":null},"data":[%s]}' % rows


def of_row(value: Callable[[], bytes]) -> Answer:
    """Return a page with one row, in which only this value is unusual."""
    return of_page(plain(lambda: listed(b'{"id":1,"x":%s}' % value())))


def tiny(count: int) -> bytes:
    """Return `count` variants that have only an id."""
    return b",".join(b'{"id":%d}' % number for number in range(1, count + 1))


def many(count: int, **over: Any) -> bytes:
    """Return `count` variants, like those of a real item."""
    rest = json.dumps(VARIANT | over, separators=(",", ":"))[1:].encode()
    return b",".join(b'{"id":%d,' % (n + 1) + rest for n in range(count))


def rows_of(items: int, variants: int) -> bytes:
    """Return rows of items with `variants` variants each."""
    return b",".join(
        b'{"id":%d,"item_variants":[%s]}' % (n + 1, many(variants)) for n in range(items)
    )


def chunks(piece: bytes, count: int, head: bytes = b"") -> Iterator[bytes]:
    """Return an answer in `count` equal chunks."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    if head:
        yield b"%x\r\n%s\r\n" % (len(head), head)
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    at_once = max(1, 65_536 // len(chunk))
    for _ in range(count // at_once):
        yield chunk * at_once


ANSWERS: dict[str, Answer] = {
    "an item as large as any": plain(lambda: item(many(600))),
    "a page as large as any": of_page(plain(lambda: listed(rows_of(100, 560)))),
    "10,000 variants": plain(lambda: item(many(10_000))),
    "1 GB in gzip in gzip": plain(lambda: bomb(2), "Content-Encoding: gzip, gzip"),
    "1 GB in gzip": plain(lambda: bomb(1), "Content-Encoding: gzip"),
    "1 GB in deflate": plain(
        lambda: zlib.compress(b" " * 1024 * MB, 1), "Content-Encoding: deflate"
    ),
    "250,000 variants": plain(lambda: item(tiny(250_000))),
    "1,000,000 variants in a row": of_page(
        plain(lambda: listed(b'{"id":1,"item_variants":[%s]}' % tiny(1_000_000)))
    ),
    "20 rows with 50,000 variants": of_page(
        plain(lambda: listed(b",".join([b'{"id":1,"item_variants":[%s]}' % tiny(50_000)] * 20)))
    ),
    "7 MB of {}": plain(lambda: item(b"", b',"x":[%s{}]' % (b"{}," * (7 * MB // 3)))),
    "31 MB of {}": of_row(lambda: b"[%s{}]" % (b"{}," * (31 * MB // 3))),
    "31 MB of {} as variants": of_page(
        plain(lambda: listed(b'{"id":1,"item_variants":[%s{}]}' % (b"{}," * (31 * MB // 3))))
    ),
    "31 MB of {} as rows": of_page(plain(lambda: listed(b"{}," * (31 * MB // 3) + b"{}"))),
    "31 MB of [[[]]]": of_row(lambda: b"[%s[]]" % (b"[[[[]]]]," * (31 * MB // 9))),
    "31 MB of 1,1,1": of_row(lambda: b"[%s1]" % (b"1," * (31 * MB // 2))),
    "31 MB of members": of_row(lambda: b"1," + b",".join(b'"%x":1' % n for n in range(2_600_000))),
    "31 MB of short texts": of_row(lambda: b'["%s"]' % (b'a","' * (31 * MB // 4))),
    "30 texts of 1 MB": of_row(lambda: b'["%s"]' % b'","'.join([b"x" * MB] * 30)),
    "one text of 30 MB": of_row(lambda: b'"%s"' % (b"x" * 30 * MB)),
    "one text of 30 MB of escapes": of_row(lambda: b'"%s"' % (b"\\n" * 15 * MB)),
    "one number of 30 MB": of_row(lambda: b"1" * 30 * MB),
    "30 MB of white space inside": of_row(lambda: b" " * 30 * MB + b"1"),
    "nested 30 MB deep": of_row(lambda: b"[" * 30 * MB),
    "30 variants named with 1 MB": of_page(
        plain(lambda: listed(b'{"id":1,"item_variants":[%s]}' % many(30, name="x" * MB)))
    ),
    "480 variants named with 60 KB": of_page(
        plain(lambda: listed(b'{"id":1,"item_variants":[%s]}' % many(480, name="x" * 61_440)))
    ),
    "9,000 unusable rows": of_page(plain(lambda: listed(b",".join([b"null"] * 9_000)))),
    "1,000,000 rows": of_page(plain(lambda: listed(tiny(1_000_000)))),
    "31 MB that is no JSON": of_page(plain(lambda: b"<" * 31 * MB)),
    "a page as large as any, with NaN": of_page(
        plain(lambda: listed(rows_of(100, 560).replace(b'"12.50"', b"NaN")))
    ),
    "endless white space": Answer(lambda: chunks(b" " * 65_000, 10**6), is_endless=True),
    "chunks of one byte": Answer(lambda: chunks(b" ", 10**9), is_endless=True),
    "503 with 31 MB": plain(lambda: b'{"x":[%s1]}' % (b"1," * 15 * MB), status="503 Busy"),
    "404 with 31 MB": plain(
        lambda: b'{"detail":"Not found.","x":[%s{}]}' % (b"{}," * 10 * MB), status="404 Not Found"
    ),
    "429 with 1 GB in gzip": plain(
        lambda: bomb(1), "Content-Encoding: gzip", status="429 Too Many Requests"
    ),
    "a million headers": Answer(
        lambda: iter([b"HTTP/1.1 200 OK\r\n", *([b"X-A: b\r\n" * 10_000] * 100), b"\r\n"])
    ),
    "a million interim answers": Answer(
        lambda: iter([b"HTTP/1.1 102 Wait\r\n\r\n" * 10_000] * 100)
    ),
}


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Give each request this answer; yields the base URL."""
    # Made before the measurement, except for endless answers.
    made = [] if answer.is_endless else list(answer.parts())

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while b"\r\n\r\n" not in connection.recv(65_536):
                pass
            for part in answer.parts() if answer.is_endless else made:
                connection.sendall(part)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=[connection], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        listener.shutdown(socket.SHUT_RDWR)


def measure(name: str) -> dict[str, Any]:
    """Return the cost of one answer for a process that reads it."""
    answer = ANSWERS[name]
    with serving(answer) as url:
        done = subprocess.run(
            [sys.executable, "-m", "load.reading", url, answer.what],
            cwd=Path(__file__).parent.parent,
            env={name: value for name, value in os.environ.items() if "COV" not in name},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    if done.returncode:
        return {"error": f"died: {done.returncode} {done.stderr[-200:]}"}
    return dict(json.loads(done.stdout))


def main() -> None:
    """Print the cost of each answer."""
    for name in sys.argv[1:] or ANSWERS:
        cost = measure(name)
        print(
            f"{name:30} {cost.get('more_mb', 0):6} MB {cost.get('gap_ms', 0):6} ms "
            f"{cost.get('seconds', 0):6} s {cost.get('pieces', 0):8} {cost['error'][:150]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
