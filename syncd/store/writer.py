"""One thread, one connection, one transaction at a time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from syncd.errors import MirrorUnavailable
from syncd.store.connection import leave, let_go, open_for_writing
from syncd.store.files import Lock, files_of, is_of_syncd, resolve
from syncd.store.translation import overwritten, translated

T = TypeVar("T")

# How long the loop stands aside at most. A batch of 500 deliveries is judged in some 20 ms.
ASIDE_S = 0.02


class Writer:
    """Runs functions of a connection in the writer's thread, each as one whole transaction."""

    def __init__(self, path: Path, *, executor: Executor | None = None) -> None:
        self._name = path
        self.path = path
        self._lock = Lock()
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="mirror-writer")
        self._connection: sqlite3.Connection | None = None
        self._files: tuple[tuple[int, int], ...] = ()
        self._owed: list[Callable[[sqlite3.Connection], object]] = []

    def open(self) -> None:
        """Take the mirror; raises the leaves of MirrorError."""
        with translated(self._name):
            # Once: a link that is changed later is noticed, not followed.
            self.path = resolve(self._name)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(self.path)
        try:
            self._connection = open_for_writing(self.path)
            with translated(self.path):
                if not is_of_syncd(self._lock.header()):
                    # From now on the file itself says that it is a mirror, not only its log.
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._files = files_of(self.path)
                if self._files[0] != self._lock.file:
                    raise _replaced(self.path)
        except BaseException:
            self._abandon()
            raise

    async def open_aside(self) -> None:
        """Do as `open` does, in the thread: the loop goes on while a large mirror is migrated."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self.open)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returned once its transaction is on disk.

        Raises MirrorUnavailable when it could not be committed; nothing of it is there then.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._transact, work)

    async def transact_aside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do as `transact` does, the loop standing aside until only the disk is waited for.

        Both threads would want Python's lock, and each make the other wait at every step of it.
        """
        worked = threading.Event()

        def work_and_tell(connection: sqlite3.Connection) -> T:
            try:
                return work(connection)
            finally:
                worked.set()

        def transact() -> T:
            try:
                return self._transact(work_and_tell)
            finally:
                worked.set()  # it may not have come that far

        future = asyncio.get_running_loop().run_in_executor(self._executor, transact)
        worked.wait(ASIDE_S)
        return await future

    async def owe(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do `work` before anything that is written from now on, as a part of it if need be.

        Raises MirrorUnavailable when that could not be yet; the next transaction tries again.
        """
        loop = asyncio.get_running_loop()
        # In the thread, so that what was given to it before comes before.
        owed = loop.run_in_executor(self._executor, self._owed.append, work)
        await asyncio.gather(owed, self.transact(lambda _: None))

    async def look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` read; it must not write."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._look, work)

    async def pulse(self) -> None:
        """Return once the thread has finished what it was given before."""
        await asyncio.get_running_loop().run_in_executor(self._executor, int)

    def close(self) -> None:
        """Finish what was begun and let go of the mirror, leaving it readable."""
        self._executor.shutdown(wait=True)
        if self._connection is not None and self._is_own_file():
            leave(self._connection)
            self._connection = None
        self._abandon()

    def _is_own_file(self) -> bool:
        try:
            return not self._lock.is_overwritten()
        except OSError:
            return False  # nothing is known of it

    def _abandon(self) -> None:
        if self._connection is not None:
            # A checkpoint would write the pages of the mirror into somebody else's database.
            let_go(self._connection)
            self._connection = None
        self._lock.release()

    def _look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open_connection()
        with translated(self.path), _forgetting(connection):
            if self._lock.is_overwritten():
                raise overwritten(self.path)
            return work(connection)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open_connection()
        with translated(self.path), _forgetting(connection):
            self._require_same_files()
            # IMMEDIATE: a transaction that reads first and writes later must not find that
            # another connection wrote in between ("database is locked", at once).
            connection.execute("BEGIN IMMEDIATE")
            try:
                owed = self._pay(connection)
                result = work(connection)
                connection.execute("COMMIT")
                del self._owed[:owed]
            except BaseException:
                # A full disk may have rolled it back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            # Meanwhile it may have been taken away: what nobody can read is not durable.
            self._require_same_files()
            return result

    def _pay(self, connection: sqlite3.Connection) -> int:
        """Do what is owed; return how much that was."""
        done = 0
        for work in self._owed:
            try:
                work(connection)
            except sqlite3.Error:
                raise
            except Exception:
                # A fault of ours may fail one transaction, not every one after it.
                del self._owed[done]
                raise
            done += 1
        return done

    def _require_same_files(self) -> None:
        """Raise MirrorUnavailable while the shop would read other files than are written.

        They are not opened anew: the log may be another database's, and all that this process
        remembers is of the old one. Put back they are used again; else a restart sorts it out.
        """
        if self._lock.is_overwritten():
            raise overwritten(self.path)
        try:
            is_same = files_of(self.path) == self._files and self._is_named
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise _replaced(self.path)

    @property
    def _is_named(self) -> bool:
        """Tell whether the configured path still leads to the file: it may be a link."""
        if self._name == self.path:
            return True
        found = self._name.stat()
        return (found.st_dev, found.st_ino) == self._files[0]

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise MirrorUnavailable("the mirror is closed")
        return self._connection


@contextlib.contextmanager
def _forgetting(connection: sqlite3.Connection) -> Iterator[None]:
    """Drop pages from memory after a fault: one that was damaged may have been mended on disk."""
    try:
        yield
    except sqlite3.DatabaseError:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA shrink_memory")
        raise


def _replaced(path: Path) -> MirrorUnavailable:
    return MirrorUnavailable(
        f"the mirror at {path} was deleted or replaced while it was in use",
        hint="put the same files back, or restart: then what is there now is used, and "
        "without a file a sweep fills a new one",
    )
