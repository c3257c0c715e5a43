"""The way of deliveries: they are late, doubled, reordered, lost, and repeated."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote_plus

from simulation.clock import BEGIN, Clock
from simulation.scenario import Scenario
from simulation.truth import Truth

UPDATED = "item-variant-availability-updated"
ADDED = "item-variant-added"
VAGUE = "item-variant-cost-updated"

# The first attempt leaves within this time.
PROMPT_S = 4.0
RETRY_S = 20.0
LONGEST_RETRY_S = 8 * 3600.0
UNPLACED = (None, "yesterday", "2026-03-01", 1772366400)

Submit = Callable[[bytes], Awaitable[str | None]]


@dataclass(frozen=True)
class Event:
    """One change of a variant; `stamped_s` is when its timestamp was taken."""

    number: int
    action: str
    variant_id: int
    value: str
    stamped_s: float


class Post:
    """Sends events until they are answered, or loses them, by the scenario."""

    def __init__(
        self, truth: Truth, scenario: Scenario, submit: Submit, trace: Callable[[str], None]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._truth = truth
        self._scenario = scenario
        self._submit = submit
        self._trace = trace
        self._clock = Clock(scenario.seconds("source") + scenario.seconds("event"))
        self._underway: set[asyncio.Task[None]] = set()
        self._events = 0

    def post(self, action: str, variant_id: int, value: str) -> None:
        """Send an event that happens now."""
        self._events += 1
        stamped_s = asyncio.get_running_loop().time()
        event = Event(self._events, action, variant_id, value, stamped_s)
        chance = self._scenario.chance(f"event {event.number}")
        self.counts["events"] += 1
        for copy in range(2 if chance.random() < self._scenario.doubled else 1):
            if chance.random() < self._scenario.dropped:
                self.counts["dropped"] += 1
                self._trace(f"post: event {event.number} ({variant_id}={value}) is lost")
                continue
            self.counts["doubled"] += copy
            carried = self._carry(event, self._scenario.chance(f"event {event.number}/{copy}"))
            task = asyncio.create_task(carried, name=f"event {event.number}")
            self._underway.add(task)
            task.add_done_callback(self._underway.discard)

    @property
    def is_empty(self) -> bool:
        """Whether no event is on its way."""
        return not self._underway

    async def _carry(self, event: Event, chance: random.Random) -> None:
        scenario = self._scenario
        if chance.random() < scenario.delayed:
            self.counts["delayed"] += 1
            await asyncio.sleep(scenario.longest_delay_s * chance.random() ** 2)
        else:
            await asyncio.sleep(PROMPT_S * chance.random() ** 2)
        fixed = self._forms(event)
        wait_s = RETRY_S
        while True:
            value = event.value
            if scenario.latest_data:
                value = self._truth.variants[event.variant_id].last or value
            self.counts["tries"] += 1
            self._trace(
                f"post: event {event.number} ({event.variant_id}={value}, at {event.stamped_s:.1f})"
            )
            outcome = await self._submit(self._body(event, value, fixed))
            if outcome is not None and chance.random() >= scenario.answers_lost:
                self.counts["answered"] += 1
                self._trace(f"post: event {event.number} answered {outcome}")
                return
            self.counts["retried"] += 1
            self._trace(f"post: event {event.number} not answered ({outcome})")
            await asyncio.sleep(wait_s * (0.5 + chance.random()))
            wait_s = min(LONGEST_RETRY_S, 2 * wait_s)

    def _forms(self, event: Event) -> dict[str, Any]:
        """Return the parts that are equal in each attempt and each copy of an event."""
        scenario, chance = self._scenario, self._scenario.chance(f"event {event.number}/forms")
        naming = scenario.naming
        if naming == "mixed":
            naming = chance.choice(["id", "object", "item_id", "none"])
        item_id = self._truth.item_of[event.variant_id]
        forms: dict[str, dict[str, Any]] = {
            "id": {"item": item_id},
            "object": {"item": {"id": item_id}},
            "item_id": {"item_id": str(item_id)},
            "none": {},
        }
        is_nameless = chance.random() < scenario.nameless
        name = uuid.UUID(int=chance.getrandbits(128), version=4)
        fields: dict[str, Any] = {} if is_nameless else {"uuid": str(name)}
        if chance.random() < scenario.unplaced:
            fields["timestamp"] = chance.choice(UNPLACED)
        else:
            fields["timestamp"] = self._timestamp(event)
        is_vague = chance.random() < scenario.vague
        fields["action"] = VAGUE if is_vague else event.action
        is_garbled = scenario.chance(f"event {event.number}/garbled").random() < scenario.garbled
        self.counts["garbled"] += is_garbled
        return {"event": fields, "item": forms[naming], "is_garbled": is_garbled}

    def _timestamp(self, event: Event) -> str:
        moment = BEGIN + timedelta(seconds=event.stamped_s) + self._clock.offset
        if self._scenario.whole_seconds:
            moment = moment.replace(microsecond=0)
        return moment.replace(tzinfo=None).isoformat() + "Z"

    def _body(self, event: Event, value: str, fixed: dict[str, Any]) -> bytes:
        document = {
            "id": event.variant_id,
            "object": "item_variant",
            "event": {"object_id": event.variant_id, **fixed["event"]},
            "data": {
                "id": event.variant_id,
                "name": f"V {event.variant_id}",
                "availability": value,
                **fixed["item"],
            },
        }
        body = json.dumps(document).encode()
        return self._garbled(event, body) if fixed["is_garbled"] else body

    def _garbled(self, event: Event, body: bytes) -> bytes:
        """Return a malformed body, as a broken sender makes it; it still names kind and variant."""
        chance = self._scenario.chance(f"event {event.number}/garble")
        begins = body.index(b'"event"')
        return chance.choice(
            [
                body[: chance.randrange(begins, len(body) - 1)],
                body.replace(b'"name": "V', b'"cost": NaN, "name": "\\ud83d'),
                b"\xef\xbb\xbf" + body.replace(b'"name": "V', b'"name": "V\xff\n'),
                b"payload=" + quote_plus(body).encode(),
                body.replace(b'"data": {"id": ', b'"data": {"id": 1'),
                body.replace(b'"availability"', b'"availability": "?", "availability"'),
            ]
        )
