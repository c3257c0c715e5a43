"""Records what each transaction applies, and which reads change nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from syncd.core.apply_read import is_no_evidence
from syncd.core.model import Delivery, ItemRead
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult, ItemSnapshot
from syncd.store import deliveries, probe, reads


@dataclass
class Step:
    """The results of the deliveries of one transaction, or its read.

    `confirmed`: the items of the deferred reads that it saves.
    """

    results: tuple[DeliveryResult, ...] = ()
    read: ItemRead | None = None
    was_overtaken: bool = False
    confirmed: tuple[int, ...] = ()


class StepRecorder:
    """Has what was applied since `reset`; calls `on_unchanged` for each read that is deferred."""

    def __init__(self) -> None:
        self.on_unchanged: Callable[[ItemRead], None] = lambda _: None
        self._step: Step | None = None
        self._confirmed: list[int] = []

    def reset(self) -> None:
        """Forget what was applied."""
        self._step = None
        self._confirmed.clear()

    @property
    def step(self) -> Step | None:
        """What was applied; None if nothing was."""
        if not self._confirmed:
            return self._step
        return replace(self._step or Step(), confirmed=tuple(self._confirmed))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch each transaction: the simulation has one thread and one daemon at a time."""
        # Not from the core: `broken` may have replaced them in the store.
        apply_deliveries = vars(deliveries)["apply_deliveries"]
        apply_read, rehearse = vars(reads)["apply_read"], probe.rehearse
        save_of_unchanged = reads.save_of_unchanged

        def recorded_deliveries(
            snapshot: BatchSnapshot, batch: Sequence[Delivery], *given: Any, **how: Any
        ) -> ChangeSet:
            change_set: ChangeSet = apply_deliveries(snapshot, batch, *given, **how)
            self._step = Step(results=tuple(change_set.results))
            return change_set

        def recorded_read(
            snapshot: ItemSnapshot, read: ItemRead, *given: Any, **how: Any
        ) -> ChangeSet:
            last = None if snapshot.item is None else snapshot.item.confirmed_at
            overtaken = last is not None and read.began_at < last
            self._step = Step(read=read, was_overtaken=overtaken or is_no_evidence(snapshot, read))
            change_set: ChangeSet = apply_read(snapshot, read, *given, **how)
            return change_set

        def recorded_unchanged(
            db: sqlite3.Connection, read: ItemRead, *given: Any, **how: Any
        ) -> Any:
            save = save_of_unchanged(db, read, *given, **how)
            if save is None:
                return None
            self.on_unchanged(read)

            def recorded_save(db: sqlite3.Connection) -> None:
                save(db)
                self._confirmed.append(read.item_id)

            return recorded_save

        def not_recorded(db: sqlite3.Connection, *given: Any) -> Any:
            result = rehearse(db, *given)
            self._step = None
            return result

        with (
            mock.patch.object(deliveries, "apply_deliveries", recorded_deliveries),
            mock.patch.object(reads, "apply_read", recorded_read),
            mock.patch.object(probe, "rehearse", not_recorded),
            mock.patch.object(reads, "save_of_unchanged", recorded_unchanged),
        ):
            yield
