"""The sender of deliveries: it signs, posts, retries, gives up, and turns the endpoint off."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

import httpx

from syncd.core.signature import HEADER, sign
from syncd.demo.fake_dreamship.catalog import UPDATED, Catalog, Event

Form = Literal["id", "object", "item_id", "none"]
ATTEMPTS = 10
# The outcome of an attempt without an answer.
UNREACHABLE = "unreachable"


@dataclass
class Network:
    """The network between Dreamship and the webhook. A random `delay_s` reorders deliveries."""

    lost_share: float = 0.0
    doubled_share: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)
    outage: bool = False


@dataclass
class WebhookSender:
    """Delivers events to one webhook URL; disables it after too many failures in a row."""

    catalogue: Catalog
    url: str
    keys: tuple[str, ...]
    network: Network = field(default_factory=Network)
    form: Form = "id"
    disables_after: int = 50
    retry_s: float = 0.2
    disabled: bool = False
    sent: int = 0
    lost: int = 0
    refused: int = 0
    doubled: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    on_answer: Callable[[Event, int, str], None] = lambda _event, _status, _outcome: None
    rng: random.Random = field(default_factory=lambda: random.Random(2))  # noqa: S311 - no secret
    client: httpx.AsyncClient | None = None
    _failed_in_a_row: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self.client = httpx.AsyncClient(timeout=30, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.client is not None:
            await self.client.aclose()

    @property
    def in_flight(self) -> int:
        """The number of deliveries without a final answer."""
        return len(self._tasks)

    def enable(self) -> None:
        """Turn the endpoint on, as a person does in the Dreamship app."""
        self.disabled = False
        self._failed_in_a_row = 0

    def post(self, event: Event) -> None:
        """Send an event after the delay of the network, once or twice, or lose it."""
        copies = 2 if self.rng.random() < self.network.doubled_share else 1
        self.doubled += copies - 1
        for _ in range(copies):
            if self.disabled or self.network.outage or self.rng.random() < self.network.lost_share:
                self.lost += 1
                continue
            task = asyncio.get_running_loop().create_task(self._send_with_retries(event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Return when no delivery is in flight."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def deliver(self, event: Event, **forms: Any) -> tuple[int, str]:
        """Send an event once, now; return the status and the outcome (or a body without JSON)."""
        body = self.body(event, **forms)
        return await self.send(body)

    async def send(self, body: bytes, *, signature: str | None = None) -> tuple[int, str]:
        """Post these bytes with this signature; by default they are signed with every key."""
        if self.client is None:
            raise RuntimeError("use it as `async with sender:`")
        headers = {HEADER: sign(body, self.keys) if signature is None else signature}
        answer = await self.client.post(
            self.url, content=body, headers={**headers, "Content-Type": "application/json"}
        )
        try:
            outcome = str(answer.json().get("outcome", answer.text))
        except ValueError:
            outcome = answer.text
        return answer.status_code, outcome

    def body(
        self,
        event: Event,
        *,
        form: Form | None = None,
        timestamp: str | None = "",
        text_ids: bool = False,
    ) -> bytes:
        """Return the documented body, with the data of this moment.

        `timestamp`: empty text takes the time of the event; None omits the field.
        """
        event_object: dict[str, Any] = {
            "uuid": event.uuid,
            "object_id": str(event.object_id) if text_ids else event.object_id,
            "object_type": event.object_type,
            "action": event.action,
            "message": "Changed through the simulator",
            "timestamp": django_timestamp(event.at) if timestamp == "" else timestamp,
            "user": "System",
        }
        if timestamp is None:
            del event_object["timestamp"]
        data = self._data(event, form or self.form) if event.data is None else event.data
        document = {
            "id": str(event.object_id) if text_ids else event.object_id,
            "object": event.object_type,
            "event": event_object,
            "data": data,
        }
        return json.dumps(document).encode()

    def other_event(self, kind: str = "order") -> Event:
        """Return an event of an order or a product, which arrives at the same URL."""
        return Event(
            f"{kind}-created", kind, 3_346_950, self.catalogue.now(), data={"id": 3_346_950}
        )

    def _data(self, event: Event, form: Form) -> dict[str, Any]:
        variant = self.catalogue.variants.get(event.object_id)
        if variant is None:
            return {"id": event.object_id}
        data = self.catalogue.variant_object(variant)
        if form == "id":
            data["item"] = variant.item_id
        elif form == "object":
            data["item"] = {"id": variant.item_id, "name": "…"}
        elif form == "item_id":
            data["item_id"] = variant.item_id
        return data

    async def _send_with_retries(self, event: Event) -> None:
        await asyncio.sleep(self.rng.uniform(*self.network.delay_s))
        for attempt in range(ATTEMPTS):
            status, outcome = 0, UNREACHABLE
            if not self.network.outage:
                try:
                    status, outcome = await self.deliver(event)
                except httpx.HTTPError as error:
                    outcome = type(error).__name__
            self._count(event, status, outcome)
            if status == httpx.codes.OK:
                return
            if self.disabled:
                break
            await asyncio.sleep(self.retry_s * 2**attempt * self.rng.random())
        self.lost += 1

    def _count(self, event: Event, status: int, outcome: str) -> None:
        self.on_answer(event, status, outcome)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if status == httpx.codes.OK:
            self.sent += 1
            self._failed_in_a_row = 0
            return
        self.refused += 1
        self._failed_in_a_row += 1
        self.disabled = self.disabled or self._failed_in_a_row >= self.disables_after


def django_timestamp(moment: datetime) -> str:
    """Return a timestamp in the form of Django, which omits a fraction of zero."""
    return moment.replace(tzinfo=None).isoformat() + "Z"


def stale_event(variant_id: int, value: str, at: datetime, item_id: int | None = None) -> Event:
    """Return an event that contains an old value, as a late delivery does."""
    data = {"id": variant_id, "name": "Old / Value", "availability": value, "item": item_id}
    return Event(UPDATED, "item_variant", variant_id, at, data=data)
