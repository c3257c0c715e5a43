"""One write thread, one connection, one transaction at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from syncd.errors import MirrorUnavailable
from syncd.store.connection import (
    close_for_readers,
    close_without_checkpoint,
    open_for_writing,
    release_memory,
    without_cached_pages_after_error,
)
from syncd.store.deferred_writes import DeferredWrites
from syncd.store.files import Lock, files_of, is_of_syncd, resolve
from syncd.store.translation import overwritten, replaced, translated

T = TypeVar("T")

# The longest time for which the loop waits. To apply a batch of 500 deliveries takes about 20 ms.
BLOCK_LOOP_S = 0.02


class Database:
    """The file of the mirror, and the one thread that reads and writes it for the daemon.

    The functions that it runs take the connection. `path` is the real path once the file is open.
    `commits` counts the transactions since the start that changed something. Each function of
    `on_commits` is called in the write thread after each transaction; it must not raise.
    """

    def __init__(self, path: Path, *, executor: Executor | None = None) -> None:
        self.path = path
        self.commits = 0
        self.on_commits: list[Callable[[], object]] = []
        self._configured_path = path
        self._lock = Lock()
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="mirror-writer")
        self._connection: sqlite3.Connection | None = None
        self._files: tuple[tuple[int, int], ...] = ()
        self._first: list[Callable[[sqlite3.Connection], object]] = []
        self._deferred = DeferredWrites()

    def open(self) -> None:
        """Lock the mirror, and create or migrate it; raises MirrorErrors."""
        with translated(self._configured_path):
            # Only once: a link that changes later is an error.
            self.path = resolve(self._configured_path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(self.path)
        try:
            self._connection = open_for_writing(self.path)
            with translated(self.path):
                if not is_of_syncd(self._lock.header()):
                    # So that the file itself, and not only its log, is marked as a mirror.
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._files = files_of(self.path)
                if self._files[0] != self._lock.file:
                    raise replaced(self.path)
        except BaseException:
            self._release()
            raise

    async def open_in_thread(self) -> None:
        """Open the mirror without blocking the loop: to migrate a large mirror takes a while."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self.open)

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of `function`, which must not write."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._read, function
        )

    async def write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of `function` once its transaction is on disk.

        Raises MirrorUnavailable if the transaction cannot be committed; then nothing is written.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._write, function
        )

    async def write_blocking_loop(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Write, and block the loop until the transaction only waits for the disk.

        Two threads that run Python code compete for the interpreter lock and slow each other down.
        """
        finished = threading.Event()

        def run(db: sqlite3.Connection) -> T:
            try:
                return function(db)
            finally:
                finished.set()

        def write() -> T:
            try:
                return self._write(run)
            finally:
                finished.set()  # the transaction may fail before it runs the function

        future = asyncio.get_running_loop().run_in_executor(self._executor, write)
        finished.wait(BLOCK_LOOP_S)
        return await future

    async def write_first(self, function: Callable[[sqlite3.Connection], object]) -> None:
        """Write, or else run `function` at the beginning of the next transaction that commits.

        Raises MirrorUnavailable if it cannot be written yet.
        """
        loop = asyncio.get_running_loop()
        # In the thread, so that all earlier functions of the thread run first.
        added = loop.run_in_executor(self._executor, self._first.append, function)
        await asyncio.gather(added, self.write(lambda _: None))

    def write_later(
        self, function: Callable[[sqlite3.Connection], object], on_commit: Callable[[], object]
    ) -> None:
        """Run `function` in the next transaction, and `on_commit` in the write thread after it."""
        self._deferred.add(function, on_commit=on_commit)

    async def defer_read(
        self,
        item_id: int,
        decide: Callable[[sqlite3.Connection], Callable[[sqlite3.Connection], object] | None],
    ) -> bool:
        """Run `decide`, which must not write; the next transaction begins with its result.

        Return False if the caller has to write the read of this item at once: `decide` returned
        None, or another function must run first, or the last read of the item failed.
        """

        def run(db: sqlite3.Connection) -> bool:
            if self._first or not self._deferred.accepts(item_id):
                return False
            # In the write thread, so no transaction comes between the decision and the next line.
            if (save := decide(db)) is not None:
                self._deferred.add(save, item_id)
            return save is not None

        return await self.read(run)

    @property
    def deferred_items(self) -> set[int]:
        """The items whose reads wait for the next transaction."""
        return self._deferred.items

    async def release_memory(self) -> None:
        """Drop the cached pages: a mirror that is rarely written needs none."""
        await self.read(release_memory)

    async def check_writable(self) -> None:
        """Raise MirrorUnavailable if no transaction can begin; write nothing."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._check_writable)

    async def ping(self) -> None:
        """Return once the thread has finished its earlier work, even if the mirror is unusable."""
        await asyncio.get_running_loop().run_in_executor(self._executor, int)

    def close(self) -> None:
        """Finish the work that was begun, and close the mirror so that readers can continue."""
        self._executor.shutdown(wait=True)
        if self._connection is not None and self._has_own_file():
            close_for_readers(self._connection)
            self._connection = None
        self._release()

    def _has_own_file(self) -> bool:
        try:
            return not self._lock.is_overwritten()
        except OSError:
            return False  # the file cannot be examined

    def _release(self) -> None:
        if self._connection is not None:
            # A checkpoint would write pages of the mirror into another database.
            close_without_checkpoint(self._connection)
            self._connection = None
        self._lock.release()

    def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        db = self._open_connection()
        with translated(self.path), without_cached_pages_after_error(db):
            if self._lock.is_overwritten():
                raise overwritten(self.path)
            return function(db)

    def _write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        db = self._open_connection()
        with translated(self.path), without_cached_pages_after_error(db):
            self._require_same_files()
            changes = db.total_changes
            deferred = self._begin(db)
            try:
                done = self._run_first(db)
                result = function(db)
                self._commit(db)
                self.commits += db.total_changes != changes
                for on_commit in self.on_commits:
                    on_commit()
                self._deferred.remove(deferred)
                del self._first[:done]
            except BaseException:
                _roll_back(db)
                raise
            # The files may have been replaced meanwhile, and then no shop sees the transaction.
            self._require_same_files()
            return result

    def _check_writable(self) -> None:
        db = self._open_connection()
        with translated(self.path), without_cached_pages_after_error(db):
            self._require_same_files()
            db.execute("BEGIN IMMEDIATE")
            db.execute("COMMIT")

    def _begin(self, db: sqlite3.Connection) -> int:
        """Begin a transaction, and run the deferred writes; return their number."""
        # IMMEDIATE: a transaction that reads first and writes later fails at once ("database is
        # locked") if another connection wrote in between.
        db.execute("BEGIN IMMEDIATE")
        try:
            return self._deferred.run(db)
        except Exception as error:
            # A read that cannot be written must not prevent the transaction of a delivery.
            _roll_back(db)
            self._deferred.fail()
            if not isinstance(error, sqlite3.Error):
                raise
        db.execute("BEGIN IMMEDIATE")
        return 0

    def _commit(self, db: sqlite3.Connection) -> None:
        try:
            db.execute("COMMIT")
        except sqlite3.Error:
            # Without the deferred writes, the next transaction may fit on the disk.
            self._deferred.fail()
            raise

    def _run_first(self, db: sqlite3.Connection) -> int:
        """Run the functions of `write_first`; return their number."""
        done = 0
        for function in self._first:
            try:
                function(db)
            except sqlite3.Error:
                raise
            except Exception:
                # A bug in the function may fail one transaction, but not each one after it.
                del self._first[done]
                raise
            done += 1
        return done

    def _require_same_files(self) -> None:
        """Raise MirrorUnavailable if shops read other files than this process writes.

        This process does not open the new files: the log may belong to another database, and the
        state in memory belongs to the old files. Once the old files are back, it uses them again;
        otherwise a restart is needed.
        """
        if self._lock.is_overwritten():
            raise overwritten(self.path)
        try:
            is_same = files_of(self.path) == self._files and self._is_at_configured_path
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise replaced(self.path)

    @property
    def _is_at_configured_path(self) -> bool:
        """Return whether the configured path, which may be a link, leads to the open file."""
        if self._configured_path == self.path:
            return True
        found = self._configured_path.stat()
        return (found.st_dev, found.st_ino) == self._files[0]

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise MirrorUnavailable("the mirror is closed")
        return self._connection


def _roll_back(db: sqlite3.Connection) -> None:
    # A full disk may have rolled the transaction back already.
    if db.in_transaction:
        db.execute("ROLLBACK")
