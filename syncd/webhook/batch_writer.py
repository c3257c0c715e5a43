"""Writes deliveries in batches: the deliveries that wait during one batch form the next.

A delivery is answered only after its transaction is on disk. One batch is in flight at a time. If
a batch fails, all of its deliveries fail, and none of them is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import structlog
from msgspec.structs import replace

from syncd.clock import Clock
from syncd.config.runtime import ActiveConfig
from syncd.core.clock_jump import Jump
from syncd.core.model import Delivery, Mention, Outcome
from syncd.core.records import DeliveryResult, ReplayResult
from syncd.dreamship.remote_clock import RemoteClock
from syncd.errors import BacklogFull, MirrorUnavailable, SyncdError
from syncd.store import Database, deliveries
from syncd.webhook.replay import replay

log = structlog.get_logger(__name__)

# A batch of this size is written in well under a second. A larger one is no faster per delivery.
MAX_BATCH = 500
# Some seconds of work, at a few thousand deliveries a second. Dreamship waits for 30 seconds.
MAX_WAITING = 10_000


class BatchWriter:
    """Makes deliveries durable, many in one commit, and answers each after the commit."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        remote_clock: RemoteClock,
        active: ActiveConfig,
        *,
        on_requests: Callable[[], None] = lambda: None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._database = database
        self._clock = clock
        self._remote_clock = remote_clock
        self._active = active
        self._on_requests = on_requests
        self._max_waiting = max_waiting
        self._waiting: list[tuple[Delivery, asyncio.Future[Outcome]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, delivery: Delivery) -> Outcome:
        """Return the outcome of a delivery, after it is on disk.

        Raises MirrorUnavailable if the delivery cannot be made durable, and BacklogFull if too many
        wait. In both cases the delivery is not stored, and Dreamship should repeat it.
        """
        if self._closed:
            raise MirrorUnavailable("shutting down")
        if len(self._waiting) >= self._max_waiting:
            raise BacklogFull(f"{len(self._waiting)} deliveries wait to be written")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="batch-writer")
        return await future

    async def replay(self, ids: Collection[int], *, is_quarantined: bool) -> list[ReplayResult]:
        """Apply stored deliveries again; raises UsageError if one of them is not stored."""
        done = await replay(
            self._database,
            ids,
            is_quarantined=is_quarantined,
            policy=lambda: self._active.current.policy,
            missed_grace=self._active.current.missed_grace,
            clock=self._clock,
            remote_clock=self._remote_clock,
        )
        self._on_requests()
        outcomes = Counter(one.outcome or "not stored" for one in done)
        log.info(
            "deliveries replayed",
            delivery_ids=[one.delivery_id for one in done],
            outcomes=dict(outcomes),
        )
        return done

    def follow(self, jump: Jump) -> None:
        """Move the times of the waiting deliveries when this host's clock jumps."""
        self._waiting = [
            (replace(delivery, arrived_at=jump.timer(delivery.arrived_at)), future)
            for delivery, future in self._waiting
        ]

    async def close(self) -> None:
        """Write the deliveries that were received, and refuse later ones."""
        self._closed = True
        if self._writer is not None:
            await self._writer

    async def _write_all(self) -> None:
        # Every delivery that is ready in this turn of the loop joins the first batch.
        await asyncio.sleep(0)
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            await self._write(batch)
        self._writer = None

    async def _write(self, batch: list[tuple[Delivery, asyncio.Future[Outcome]]]) -> None:
        try:
            results = await self._commit([delivery for delivery, _ in batch])
        except SyncdError as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - each waiting request must be answered
            await self._write_apart(batch, error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():  # the client may have disconnected
                    future.set_result(result.outcome)
            if any(
                one.rule or one.outcome == "verifying" or one.delivery.mention for one in results
            ):
                self._on_requests()
            _log(results)

    async def _write_apart(
        self, batch: list[tuple[Delivery, asyncio.Future[Outcome]]], error: Exception
    ) -> None:
        """Write each delivery by itself, so that an unwritable delivery does not fail the others.

        No such delivery is known. Each repetition would fail until Dreamship disables the endpoint.
        So the delivery is quarantined: stored whole, and reported.
        """
        if len(batch) > 1:
            for one in batch:
                await self._write([one])
            return
        delivery, future = batch[0]
        if delivery.quarantined is not None and delivery.mention is None:
            _fail(batch, MirrorUnavailable(f"a delivery could not be stored: {error!r}"))
            return
        # The variant in it may have changed. If the variant cannot be written either, only the body
        # is stored.
        update = delivery.update
        named = None if update is None else Mention((update.variant_id,), is_certain=True)
        odd = replace(
            delivery,
            action=None,
            update=None,
            quarantined=delivery.quarantined or f"it could not be written: {error!r}",
            mention=named,
        )
        await self._write([(odd, future)])

    async def _commit(self, batch: list[Delivery]) -> list[DeliveryResult]:
        current = self._active.current
        now, source_now = self._clock.now(), self._remote_clock.now()
        return await self._database.write_blocking_loop(
            lambda db: deliveries.apply(
                db,
                batch,
                current.policy,
                now=now,
                source_now=source_now,
                missed_grace=current.missed_grace,
            )
        )


def _fail(batch: list[tuple[Delivery, asyncio.Future[Outcome]]], error: SyncdError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _log(results: Sequence[DeliveryResult]) -> None:
    """Log each quarantined delivery, and at level debug every delivery."""
    is_debug = log.is_enabled_for(logging.DEBUG)  # once: a batch may have hundreds of deliveries
    for one in results:
        if one.outcome == "quarantined":
            log.warning(
                "a delivery was not understood",
                **_named(one),
                **_mentioned(one.delivery),
                reason=one.delivery.quarantined,
                hint="it is stored; see `syncd deliveries --outcome quarantined --body`",
            )
        elif is_debug:
            update = one.delivery.update
            about = {} if update is None else {"variant_id": update.variant_id}
            log.debug("delivery", **_named(one), **about, outcome=one.outcome, rule=one.rule)


def _named(one: DeliveryResult) -> dict[str, object]:
    delivery = one.delivery
    return {
        "delivery_id": one.delivery_id,
        "event_id": delivery.event_id,
        "action": delivery.action,
    }


def _mentioned(delivery: Delivery) -> dict[str, object]:
    mention = delivery.mention
    return {"variant_ids": list(mention.variant_ids)} if mention and mention.variant_ids else {}
