"""The events at Dreamship: availability changes, and variants and items are added and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from simulation.post import ADDED, UPDATED, Post
from simulation.scenario import Scenario
from simulation.truth import BLOCKED, Truth

SOLD = frozenset({"in_stock", "low_stock"})
VALUES = ("in_stock", "in_stock", "low_stock", "out_of_stock", "out_of_stock", "discontinued", "?")
CATEGORIES = (1, 2)


class World:
    """Changes the truth at random times, and sends deliveries about the changes."""

    def __init__(
        self, truth: Truth, scenario: Scenario, post: Post, trace: Callable[[str], None]
    ) -> None:
        self._truth = truth
        self._scenario = scenario
        self._post = post
        self._trace = trace
        self._chance = scenario.chance("world")
        self._status_chance = scenario.chance("status")

    def begin(self) -> None:
        """Fill the catalogue."""
        for number in range(self._scenario.items):
            item_id = self._truth.new_item(-1000.0, CATEGORIES[number % len(CATEGORIES)])
            for _ in range(self._chance.randint(1, self._scenario.most_variants)):
                self._truth.new_variant(item_id, -1000.0, self._chance.choice(VALUES))

    async def run(self) -> None:
        """Make all changes of the scenario."""
        scenario, chance = self._scenario, self._chance
        mean_s = scenario.horizon_s / scenario.changes
        for _ in range(scenario.changes):
            await asyncio.sleep(chance.expovariate(1 / mean_s))
            for _ in range(chance.randint(1, 4) if scenario.bursts else 1):
                self._happen()
            if self._status_chance.random() < scenario.statuses:
                self._change_status()

    def _happen(self) -> None:
        fate = self._chance.random()
        scenario = self._scenario
        if fate < scenario.additions:
            self._add()
        elif fate < scenario.additions + scenario.removals:
            self._remove()
        else:
            self._change()

    def _change(self) -> None:
        chance, truth = self._chance, self._truth
        known = [v for v, history in truth.variants.items() if history.last is not None]
        known = [v for v in known if truth.items[truth.item_of[v]].last is not None]
        if not known:
            return
        is_hot = chance.random() < self._scenario.hot_share
        variant_id = chance.choice(known[:2] if is_hot else known)
        history = truth.variants[variant_id]
        value = chance.choice([value for value in VALUES if value != history.last])
        at_s = history.add(self._visible_s(), value)
        self._trace(f"world: {variant_id}={value}, visible {at_s:.1f}")
        self._post.post(UPDATED, variant_id, value)

    def _change_status(self) -> None:
        item_id = self._status_chance.choice(sorted(self._truth.status_of))
        history = self._truth.status_of[item_id]
        status = "released" if history.last == BLOCKED else BLOCKED
        at_s = history.add(asyncio.get_running_loop().time(), status)
        self._trace(f"world: item {item_id} is {status}, visible {at_s:.1f}")

    def _add(self) -> None:
        chance, truth = self._chance, self._truth
        listed = truth.now_listed()
        is_reported = chance.random() < self._scenario.reported_additions
        at_s = self._visible_s()
        gone = [item for item, history in truth.items.items() if history.last is None]
        if gone and chance.random() < 0.5:
            item_id = chance.choice(gone)
            truth.items[item_id].add(at_s, "")
            self._trace(f"world: item {item_id} is back, visible {at_s:.1f}")
            return
        if not listed or chance.random() < 0.4:
            item_id = truth.new_item(at_s, chance.choice(CATEGORIES))
        else:
            item_id = chance.choice(listed)
        for _ in range(chance.randint(1, 2)):
            value = chance.choice(VALUES)
            variant_id = truth.new_variant(item_id, at_s, value)
            self._trace(f"world: {variant_id}={value} in item {item_id} is new, {is_reported=}")
            if is_reported:
                self._post.post(ADDED, variant_id, value)

    def _remove(self) -> None:
        chance, truth = self._chance, self._truth
        at_s = self._visible_s()
        listed = truth.now_listed()
        if listed and chance.random() < 0.4:
            item_id = chance.choice(listed)
            truth.items[item_id].add(at_s, None)
            self._trace(f"world: item {item_id} goes, visible {at_s:.1f}")
            return
        here = [v for v, history in truth.variants.items() if history.last is not None]
        if here:
            variant_id = chance.choice(here)
            truth.variants[variant_id].add(at_s, None)
            self._trace(f"world: {variant_id} goes, visible {at_s:.1f}")

    def _visible_s(self) -> float:
        return asyncio.get_running_loop().time() + self._scenario.lead_s * self._chance.random()
