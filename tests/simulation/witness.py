"""Records what each transaction applies."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from syncd.core.apply_read import is_no_evidence
from syncd.core.model import Delivery, ItemRead
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult, ItemSnapshot
from syncd.store import deliveries, probe, reads


@dataclass
class Step:
    """The results of the deliveries of one transaction, or its read."""

    results: tuple[DeliveryResult, ...] = ()
    read: ItemRead | None = None
    was_overtaken: bool = False


class StepRecorder:
    """Has in `step` what was applied since its last reset."""

    step: Step | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch each transaction: the simulation has one thread and one daemon at a time."""
        # Not from the core: `broken` may have replaced them in the store.
        apply_deliveries = vars(deliveries)["apply_deliveries"]
        apply_read, rehearse = vars(reads)["apply_read"], probe.rehearse

        def recorded_deliveries(
            snapshot: BatchSnapshot, batch: Sequence[Delivery], *given: Any, **how: Any
        ) -> ChangeSet:
            change_set: ChangeSet = apply_deliveries(snapshot, batch, *given, **how)
            self.step = Step(results=tuple(change_set.results))
            return change_set

        def recorded_read(
            snapshot: ItemSnapshot, read: ItemRead, *given: Any, **how: Any
        ) -> ChangeSet:
            last = None if snapshot.item is None else snapshot.item.confirmed_at
            overtaken = last is not None and read.began_at < last
            self.step = Step(read=read, was_overtaken=overtaken or is_no_evidence(snapshot, read))
            change_set: ChangeSet = apply_read(snapshot, read, *given, **how)
            return change_set

        def not_recorded(db: sqlite3.Connection, *given: Any) -> Any:
            result = rehearse(db, *given)
            self.step = None
            return result

        with (
            mock.patch.object(deliveries, "apply_deliveries", recorded_deliveries),
            mock.patch.object(reads, "apply_read", recorded_read),
            mock.patch.object(probe, "rehearse", not_recorded),
        ):
            yield
