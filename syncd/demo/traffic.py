"""The changes at the simulated Dreamship: random ones, and those of a person."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

import httpx

from syncd.demo.fake_dreamship import Catalog, Event, WebhookSender
from syncd.demo.requests import Flipped, FlipRequest
from syncd.errors import SyncdError

VARIANTS_PER_ITEM = 8
# The last values of each variant; a demo without an end would collect all of them.
_MAX_HISTORY = 100
_VALUES = ("in_stock", "in_stock", "in_stock", "out_of_stock", "low_stock")


class Traffic:
    """Changes variants and sends their deliveries; `changes` counts them.

    A variant that a person has changed keeps its value until this person changes it again.
    """

    def __init__(self, catalogue: Catalog, rng: random.Random) -> None:
        self._catalogue = catalogue
        self._rng = rng
        self._chosen: set[int] = set()
        self._recent: deque[int] = deque(maxlen=100)
        self.sender: WebhookSender | None = None
        self.changes = 0

    async def run(
        self,
        *,
        per_s: float,
        until: Callable[[], bool],
        unchanged: set[int] | None = None,
        adds: bool = False,
    ) -> None:
        """Change random variants; with `unchanged`, only these and each only once.

        `adds`: a new variant now and then.
        """
        while not until():
            free = sorted(self._catalogue.variants if unchanged is None else unchanged)
            free = [one for one in free if one not in self._chosen]
            if free:
                variant_id = self._rng.choice(free)
                self._change(variant_id)
                if unchanged is not None:
                    unchanged.discard(variant_id)
                if adds and self._rng.random() < 0.01:  # noqa: PLR2004 - rarely
                    item_id = self._catalogue.variants[variant_id].item_id
                    self._send(self._catalogue.add_variant(item_id))
            await asyncio.sleep(self._rng.expovariate(per_s))

    def unchanged(self) -> set[int]:
        """Return the variants that no person changed, and that did not change lately."""
        return set(self._catalogue.variants) - self._chosen - {*self._recent}

    async def flip(self, request: FlipRequest) -> Flipped:
        """Change one variant for a person, and deliver it at once; raises SyncdErrors."""
        variant, sender = self._catalogue.variants.get(request.variant_id), self.sender
        if variant is None:
            near = min(self._catalogue.variants, key=lambda one: abs(one - request.variant_id))
            raise SyncdError(
                f"the demo has no variant {request.variant_id}",
                hint=f"choose another, {near} for instance; the mirror has all of them",
            )
        if sender is None:
            raise SyncdError("the demo is still starting", hint="try again in a second")
        self._chosen.add(request.variant_id)
        old = variant.availability
        event = self._catalogue.set_availability(request.variant_id, request.value)
        outcome = "lost"
        if request.lose or sender.network.outage:
            sender.lost += 1
            self.changes += 1
        else:
            outcome = await self._deliver(sender, event)
        return Flipped(request.variant_id, variant.item_id, old, request.value, outcome)

    async def _deliver(self, sender: WebhookSender, event: Event) -> str:
        try:
            status, outcome = await sender.deliver(event)
        except httpx.HTTPError as error:
            status, outcome = 0, type(error).__name__
        # Counted together, so that the sums are right at each moment.
        self.changes += 1
        if status != httpx.codes.OK:
            sender.lost += 1
            raise SyncdError(
                f"the delivery failed ({outcome or status}), but Dreamship has the new value",
                hint="syncd finds it by reading; daemon.log in the folder of the demo has more",
            )
        sender.sent += 1
        sender.on_answer(event, status, outcome)
        return outcome

    def _change(self, variant_id: int) -> None:
        variant = self._catalogue.variants[variant_id]
        self._recent.append(variant_id)
        del variant.history[:-_MAX_HISTORY]
        value = self._rng.choice([one for one in _VALUES if one != variant.availability])
        self._send(self._catalogue.set_availability(variant_id, value))

    def _send(self, event: Event) -> None:
        if self.sender is None:
            raise RuntimeError("the traffic has no sender yet")
        self.sender.post(event)
        self.changes += 1
