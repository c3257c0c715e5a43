"""Writes that need no separate commit: the next transaction runs them before anything else.

No other transaction comes between a deferred write and its execution. So each transaction finds
the mirror as if every deferred write had been committed at once. A crash loses them, so each one
must be something that syncd can find out again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

Function = Callable[[sqlite3.Connection], object]


class DeferredWrites:
    """The functions that the next transaction runs first, in their order.

    Only the write thread runs and removes them.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Function, int | None, Callable[[], object]]] = []
        self._failed: set[int] = set()

    def add(
        self,
        function: Function,
        item_id: int | None = None,
        on_commit: Callable[[], object] = lambda: None,
    ) -> None:
        """Add a write; `item_id`: of the item whose read it stores."""
        self._waiting.append((function, item_id, on_commit))

    @property
    def items(self) -> set[int]:
        """The items whose reads wait to be written."""
        return {item_id for _, item_id, _ in self._waiting if item_id is not None}

    def accepts(self, item_id: int) -> bool:
        """Return whether a read of an item may wait: only one, and not after one that failed.

        After a failed write, the next write of the item is not deferred, so that its error reaches
        the caller.
        """
        if item_id in self._failed:
            self._failed.discard(item_id)
            return False
        return item_id not in self.items

    def run(self, db: sqlite3.Connection) -> int:
        """Run all functions in the open transaction; return their number."""
        waiting = self._waiting.copy()
        for function, _, _ in waiting:
            function(db)
        return len(waiting)

    def remove(self, number: int) -> None:
        """Forget the first functions, which are committed."""
        for _, _, on_commit in self._waiting[:number]:
            on_commit()
        del self._waiting[:number]

    def fail(self) -> None:
        """Forget all functions, because one of them may prevent every transaction."""
        self._failed |= self.items
        self._waiting.clear()
