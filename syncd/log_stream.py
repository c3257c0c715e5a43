"""A stream that never makes its writer wait, even if the reader is slow, stuck or gone."""

from __future__ import annotations

import io
import os
import select
import threading
from collections.abc import Callable, Sequence

# Thousands of lines, so that a reader may restart or be slow for a while without a loss.
MAX_WAITING_BYTES = 1024 * 1024


class LogStream(io.TextIOBase):
    """Accepts text at once; a thread writes it to the descriptor `fd`, in order.

    Each call of `write` is one line or several, written whole or dropped whole. A line is dropped
    if more than MAX_WAITING_BYTES wait, or if it cannot be written (a closed pipe, a full disk).
    After a drop, further lines are dropped until all waiting lines are written, so there is only
    one gap. Then the thread calls `on_dropped` with the number of lines.
    """

    def __init__(self, fd: int, *, on_dropped: Callable[[int], None]) -> None:
        self._fd = fd
        self._on_dropped = on_dropped
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._is_writing = False
        self._is_torn = False
        self._refused = 0
        self.dropped = 0
        # Its lock is reentrant: a collected object may log while a line is being added.
        self._changed = threading.Condition()
        # A daemon thread: a write that never returns does not delay the end of the process.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Accept one or more whole lines; never waits and never fails."""
        line = text.encode(errors="backslashreplace")
        # A report of dropped lines is not dropped: only this report has their number.
        is_report = threading.current_thread() is self._thread
        with self._changed:
            is_full = self._waiting_bytes + len(line) > MAX_WAITING_BYTES
            if not is_report and (self._refused or is_full):
                self._refused += 1
                self.dropped += 1
            else:
                self._waiting.append(line)
                self._waiting_bytes += len(line)
                self._changed.notify_all()
        return len(text)

    def drain(self, limit_s: float) -> bool:
        """Wait until all lines are written, at most `limit_s`; return whether they are."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._is_writing, limit_s
            )

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._fd)

    def _run(self) -> None:
        missing = 0
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                # All at once: each write releases Python's interpreter lock, and waits for it
                # again.
                lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
                self._is_writing = True
            failed = self._write_lines(lines)
            with self._changed:
                self.dropped += failed
                missing += failed
                if not self._waiting:
                    missing += self._refused
                    self._refused = 0
            if missing and not failed:
                reported, missing = missing, 0
                self._on_dropped(reported)

    def _write_lines(self, lines: Sequence[bytes]) -> int:
        """Write lines, without a time limit; return how many could not be written."""
        whole = b"".join([b"\n", *lines] if self._is_torn else lines)
        rest = memoryview(whole)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # Another process that shares the descriptor has made it non-blocking.
                waiting = select.poll()
                waiting.register(self._fd, select.POLLOUT)
                waiting.poll()
            except OSError:
                return self._failed(lines, len(rest), is_begun=len(rest) < len(whole))
        self._is_torn = False
        return 0

    def _failed(self, lines: Sequence[bytes], rest: int, *, is_begun: bool) -> int:
        """Return how many lines are incomplete if the last `rest` bytes were not written."""
        failed = 0
        for line in reversed(lines):
            failed += 1
            rest -= len(line)
            if rest <= 0:
                break
        # A written part of a line counts as no line; the next line must not continue it.
        self._is_torn = rest < 0 if is_begun else self._is_torn
        return failed
