"""Deliveries into the mirror: what waits while one batch is being written forms the next.

A delivery's future is resolved only after its transaction is on disk. One batch is in flight at a
time; a failed batch fails everyone in it and leaves nothing half done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import structlog
from msgspec.structs import replace

from syncd.clock import Clock, Jump
from syncd.core.apply_deliveries import apply_deliveries
from syncd.core.model import Delivery, Mention, Outcome
from syncd.core.policy import Policy
from syncd.core.ports import DeliveryLedger
from syncd.core.records import DeliveryResult
from syncd.dreamship.remote_clock import RemoteClock
from syncd.errors import BacklogFull, MirrorUnavailable, SyncdError

log = structlog.get_logger(__name__)

# A batch this large is written in well under a second; larger ones gain nothing per delivery.
MAX_BATCH = 500
# At a few thousand a second this is some seconds of work; Dreamship gives up after 30.
MAX_WAITING = 10_000


class BatchWriter:
    """Makes deliveries durable, many in one commit, each answered after it."""

    def __init__(
        self,
        ledger: DeliveryLedger,
        clock: Clock,
        remote_clock: RemoteClock,
        policy: Policy,
        *,
        on_questions: Callable[[], None] = lambda: None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.policy = policy
        self._ledger = ledger
        self._clock = clock
        self._remote_clock = remote_clock
        self._on_questions = on_questions
        self._max_waiting = max_waiting
        self._waiting: list[tuple[Delivery, asyncio.Future[Outcome]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, delivery: Delivery) -> Outcome:
        """Return what became of a delivery, after it is on disk.

        Raises MirrorUnavailable when it could not be made durable and BacklogFull when too many
        wait; in both cases nothing of it was kept and Dreamship shall try again.
        """
        if self._closed:
            raise MirrorUnavailable("shutting down")
        if len(self._waiting) >= self._max_waiting:
            raise BacklogFull(f"{len(self._waiting)} deliveries wait to be written")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="ingest")
        return await future

    def follow(self, jump: Jump) -> None:
        """Move what waits to be written when this host's clock jumps."""
        self._waiting = [
            (replace(delivery, arrived_at=jump.timer(delivery.arrived_at)), future)
            for delivery, future in self._waiting
        ]

    async def close(self) -> None:
        """Finish what was received; refuse what comes after."""
        self._closed = True
        if self._writer is not None:
            await self._writer

    async def _write_all(self) -> None:
        # Everything that became ready in this turn of the loop joins the first batch.
        await asyncio.sleep(0)
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            await self._write(batch)
        self._writer = None

    async def _write(self, batch: list[tuple[Delivery, asyncio.Future[Outcome]]]) -> None:
        try:
            judged = await self._commit([delivery for delivery, _ in batch])
        except SyncdError as fault:
            _fail(batch, fault)
        except Exception as fault:  # noqa: BLE001 - whoever waits must learn of any fault at all
            await self._write_apart(batch, fault)
        else:
            for (_, future), verdict in zip(batch, judged, strict=True):
                if not future.done():  # its connection may have been lost meanwhile
                    future.set_result(verdict.outcome)
            if any(
                one.rule or one.outcome == "verifying" or one.delivery.mention for one in judged
            ):
                self._on_questions()
            _tell(judged)

    async def _write_apart(
        self, batch: list[tuple[Delivery, asyncio.Future[Outcome]]], fault: Exception
    ) -> None:
        """Keep one delivery that cannot be written from failing its neighbours, or itself for ever.

        No such delivery is known. Were there one, its retries would come back until Dreamship
        turns the endpoint off; kept whole and reported it loses nothing.
        """
        if len(batch) > 1:
            for one in batch:
                await self._write([one])
            return
        delivery, future = batch[0]
        if delivery.quarantined is not None and delivery.mention is None:
            _fail(batch, MirrorUnavailable(f"a delivery could not be kept: {fault!r}"))
            return
        # What it names may have changed; if even that cannot be written, the body alone is kept.
        update = delivery.update
        named = None if update is None else Mention((update.variant_id,), is_certain=True)
        odd = replace(
            delivery,
            action=None,
            update=None,
            quarantined=delivery.quarantined or f"it could not be written: {fault!r}",
            mention=named,
        )
        await self._write([(odd, future)])

    async def _commit(self, deliveries: list[Delivery]) -> list[DeliveryResult]:
        now = self._clock.now()
        source_now = self._remote_clock.now()
        policy = self.policy
        return await self._ledger.deliver(
            deliveries,
            lambda snapshot: apply_deliveries(
                snapshot, deliveries, policy, now=now, source_now=source_now
            ),
            now,
        )


def _fail(batch: list[tuple[Delivery, asyncio.Future[Outcome]]], fault: SyncdError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(fault)


def _tell(judged: Sequence[DeliveryResult]) -> None:
    """Tell of each delivery somebody has to look at, and at debug of every one."""
    is_debug = log.is_enabled_for(logging.DEBUG)  # asked once: a batch may have hundreds
    for one in judged:
        if one.outcome == "quarantined":
            log.warning(
                "a delivery was not understood",
                **_named(one),
                **_mentioned(one.delivery),
                reason=one.delivery.quarantined,
                hint="it is kept; see `syncd deliveries --outcome quarantined --body`",
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
