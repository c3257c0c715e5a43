"""One run: a world, a daemon that lives and dies in it, and the checks that look on."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace

from simulation.checks import Checks
from simulation.clock import Clock, VirtualLoop
from simulation.post import Post
from simulation.process import Process, reader, task_factory
from simulation.scenario import Scenario, drawn
from simulation.source import Source
from simulation.truth import Truth
from simulation.witness import Witness
from simulation.world import CATEGORIES, World
from syncd.config import Config
from syncd.core import payload
from syncd.errors import MirrorUnavailable

# Memory, if there is such a place: FULL synchronous costs nothing there.
FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
SETTLE = timedelta(seconds=60)
TICK_S = 30.0
LOOK_S, LONGEST_LOOK_S = 20.0, 600.0
# Pauses of an hour, ten of them in a row, are no life-lock yet.
QUIET_WITHIN_S = 4 * 24 * 3600.0
SWEEPS_AT_MOST = 40


@dataclass
class Report:
    """What a run came to; `fault` None: all was well."""

    seed: int
    fault: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)


def simulate(seed: int, *, scenario: Scenario | None = None, verbose: bool = False) -> Report:
    """Run the world of a seed, in a folder of its own, and return what came of it."""
    folder = Path(tempfile.mkdtemp(prefix="syncd-simulation-", dir=FOLDER))
    configured = structlog.get_config()
    report = Report(seed)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            run = _Run(scenario or drawn(seed), folder, report, verbose=verbose)
            structlog.configure(processors=[run.heard], cache_logger_on_first_use=False)
            runner.get_loop().set_task_factory(task_factory)
            with run.witness.watching():
                runner.run(run.play())
    finally:
        structlog.configure(**configured)
        shutil.rmtree(folder, ignore_errors=True)
    return report


class _Run:
    process: Process

    def __init__(self, scenario: Scenario, folder: Path, report: Report, *, verbose: bool) -> None:
        self.scenario = scenario
        self.report = report
        self._verbose = verbose
        self._folder = folder
        self._answered: set[str] = set()
        self._lives = 0
        self.witness = Witness()
        self._beside: set[asyncio.Task[object]] = set()
        self._is_rough = True

    def heard(self, logger: object, method: str, event: structlog.types.EventDict) -> str:
        """Take a line of the product's log; what it calls unknown is a fault."""
        del logger
        self.tell(f"log: {method} {event}")
        if "no known reason" in str(event.get("event")):
            self.checks.fail(f"the daemon says: {event}")
        raise structlog.DropEvent

    def tell(self, line: str) -> None:
        """Add a line to the story."""
        if self._verbose:
            self.report.trace.append(f"{asyncio.get_running_loop().time():10.3f} {line}")

    async def play(self) -> None:
        scenario = self.scenario
        self.truth = Truth()
        self._running = asyncio.Event()
        self._running.set()
        self.host = Clock(scenario.seconds("host"))
        self.checks = Checks(
            self.truth,
            scenario,
            elapsed=lambda: timedelta(seconds=self.host.elapsed_s()),
            now=self._now,
            settle=SETTLE,
            tell=self.tell,
        )
        self.source = Source(
            self.truth,
            scenario,
            now=self._now,
            awake=self._awake,
            knows_clock=lambda: self.process.services.remote_clock.answers > 0,
            tell=self.tell,
        )
        self.post = Post(self.truth, scenario, self._submit, self.tell)
        self.world = World(self.truth, scenario, self.post, self.tell)
        self.tell(str(scenario))
        self.world.begin()
        config = self._config()
        self._catalog = config.catalog
        await self._bear(config)
        story = asyncio.create_task(self._story())
        ticking = asyncio.create_task(self._tick())
        failure = asyncio.create_task(self.checks.failed.wait())
        await asyncio.wait({story, failure}, return_when=asyncio.FIRST_COMPLETED)
        if story.done() and story.exception() is not None:
            self.checks.fail(f"{story.exception()!r}")
        ticking.cancel()
        await self._end()

    async def _story(self) -> None:
        scenario, checks = self.scenario, self.checks
        dying = asyncio.create_task(self._deaths())
        jumping = asyncio.create_task(self._steps())
        napping = asyncio.create_task(self._naps())
        await self.world.run()
        await asyncio.gather(dying, jumping, napping)
        self._is_rough = False
        await self._until(lambda: self.post.is_empty, "the post is not empty")
        if not scenario.hides_lost:
            await self._quiet()
            if scenario.is_told:
                checks.compare(removals=False, in_scope=self._in_scope)
        self.source.is_mild = True
        self.process.heal()
        # What has just been written must be visible, and deliveries be settled.
        await asyncio.sleep(60 + scenario.lag_s + scenario.lead_s)
        await self._sweep()
        checks.compare(removals=True, in_scope=self._in_scope)
        checks.kept(self._answered)
        if self.source.most_in_a_window > scenario.calls_per_minute:
            checks.fail(f"{self.source.most_in_a_window} calls in a minute of the source's clock")

    async def _sweep(self) -> None:
        """Have the whole catalogue read, from now on."""
        process = self.process
        for _ in range(SWEEPS_AT_MOST):
            sweep_id, _ = await process.services.sweep_manager.request(
                "operator", accept_removals=self._is_held()
            )

            def ended(sweep_id: int = sweep_id) -> bool:
                last = process.last_sweep
                return last is not None and last.sweep_id >= sweep_id

            await self._until(ended, "the sweep does not end")
            await self._quiet()
            if process.last_sweep is not None and process.last_sweep.result == "complete":
                return
        self.checks.fail("no sweep is ever complete")

    def _is_held(self) -> bool:
        """Tell whether the status asks an operator to accept removals."""
        absent = self.checks.ask("SELECT 1 FROM variants WHERE missing_since IS NOT NULL LIMIT 1")
        return bool(absent)

    async def _quiet(self) -> None:
        """Wait until nothing is left to ask, as an operator who accepts what is held back."""
        waited: list[int] = []

        def is_quiet() -> bool:
            last = self.process.last_sweep
            is_new = last is not None and last.sweep_id not in waited
            if is_new and last is not None:
                waited.append(last.sweep_id)
                if last.removals_held:
                    self._begin_beside(self._accept())
            return self._is_quiet()

        await self._until(is_quiet, "there is always something left to ask")

    async def _accept(self) -> None:
        with contextlib.suppress(MirrorUnavailable):
            await self.process.services.sweep_manager.request("operator", accept_removals=True)

    def _begin_beside(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something beside the story, as a part of the daemon's life."""
        task = asyncio.create_task(self.process.run(work))
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _is_quiet(self) -> bool:
        ask = self.checks.ask
        last = ask("SELECT result FROM sweeps WHERE is_catalogue ORDER BY sweep_id DESC LIMIT 1")
        return (
            last == [("complete",)]
            and not ask("SELECT 1 FROM refresh_queue LIMIT 1")
            and not ask("SELECT 1 FROM unplaced_variants WHERE not_found_at IS NULL LIMIT 1")
        )

    async def _until(self, true: Callable[[], bool], fault: str) -> None:
        loop = asyncio.get_running_loop()
        last_s = loop.time() + QUIET_WITHIN_S
        wait_s = LOOK_S
        while not true():
            if loop.time() > last_s:
                self.checks.fail(fault)
            await asyncio.sleep(wait_s)
            wait_s = min(LONGEST_LOOK_S, wait_s * 1.2)

    async def _tick(self) -> None:
        while self.scenario.is_calm:
            await asyncio.sleep(TICK_S)
            self.checks.tick()

    async def _deaths(self) -> None:
        """End the daemon, gently or not, as often as the scenario says."""
        chance = self.scenario.chance("deaths")
        for _ in range(self.scenario.deaths):
            await asyncio.sleep(chance.uniform(0, 1.5 * self.scenario.horizon_s))
            await self._running.wait()
            process = self.process
            if chance.random() < 0.3:
                self.tell("daemon: stops")
                await process.stop()
            else:
                process.death = (chance.choice(["before", "after"]), chance.randrange(12))
                await process.died.wait()
            self.report.counts["deaths"] += 1
            config = process.next_config()
            await asyncio.sleep(chance.choice([0.0, 1.0, 20.0, 400.0]))
            await self._running.wait()
            await self._bear(config)

    async def _steps(self) -> None:
        """Set the wall clock of the host; the daemon notices within a second."""
        loop, chance = asyncio.get_running_loop(), self.scenario.chance("steps")
        for at_s, by_s in self.scenario.clock_steps:
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            self.tell(f"host: its clock is set by {by_s} s")
            self.report.counts["clock steps"] += 1
            self.host.offset += timedelta(seconds=by_s)
            await self._noticed(chance.random())

    async def _naps(self) -> None:
        """Let the host stand still while the world goes on."""
        loop, chance = asyncio.get_running_loop(), self.scenario.chance("naps")
        for at_s, length_s, is_counted in self.scenario.naps:
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            self.tell(f"host: stands still for {length_s} s, {is_counted=}")
            self.report.counts["naps"] += 1
            self._running.clear()
            self.process.clock.awake.clear()
            await asyncio.sleep(length_s)
            if not is_counted:
                self.host.stolen_s += length_s
            self.process.clock.awake.set()
            self._running.set()
            self.tell("host: goes on")
            await self._noticed(chance.random())

    async def _noticed(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        process = self.process
        if process.is_up and not process.is_dead and process.clock.awake.is_set():
            await process.run(process.check_clock())

    def _now(self) -> datetime:
        return self.process.clock.now()

    async def _awake(self) -> None:
        await self.process.clock.awake.wait()

    async def _bear(self, config: Config) -> None:
        """Start a daemon."""
        self.tell("daemon: starts")
        self._lives += 1
        self.process = Process(
            config,
            clock=self.host,
            source=self.source,
            chance=self.scenario.chance(f"life {self._lives}"),
            witness=self.witness,
            disk_faults=self.scenario.disk_faults,
            is_rough=lambda: self._is_rough,
            on_commit=self.checks.committed,
            on_swept=lambda summary: self.checks.swept(summary.sweep_id, self._in_scope),
            tell=self.tell,
        )
        config.mirror.path.parent.mkdir(exist_ok=True)
        self.checks.watch(None)
        watch = self.checks.watch
        await self.process.run(self.process.start(lambda: watch(reader(config.mirror.path))))

    async def _submit(self, body: bytes) -> str | None:
        event_id = payload.parse(body, self.host.now()).event_id
        outcome = await self.process.submit(body)
        if outcome is not None:
            self._answered.add(event_id)
        return outcome

    async def _end(self) -> None:
        self.checks.watch(None)
        if not self.process.is_dead:
            self.process.kill()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        counts = self.report.counts
        counts.update(self.post.counts)
        counts["runs"] = 1
        counts["told"] = int(self.scenario.is_told)
        counts["calm"] = int(self.scenario.is_calm)
        counts["calls"] = len(self.source.calls_at)
        counts["reads"] = self.checks.reads
        counts["throttles"] = self.source.throttled
        counts["failed calls"] = self.source.failed
        counts["transactions"] = self.checks.looks
        self.report.fault = self.checks.fault

    def _in_scope(self, item_id: int) -> bool:
        catalog = self._catalog
        if catalog.items:
            return item_id in catalog.items
        return not catalog.categories or self.truth.category_of[item_id] in catalog.categories

    def _config(self) -> Config:
        config = Config()
        scenario = self.scenario
        catalog = config.catalog
        if scenario.scope == "items":
            # One that is not there yet, and may never be.
            chosen = (*list(self.truth.items)[::2], self.truth.next_id)
            catalog = replace(catalog, items=chosen)
        elif scenario.scope == "categories":
            catalog = replace(catalog, categories=CATEGORIES[: 1 + scenario.seed % 2])
        return replace(
            config,
            mirror=replace(config.mirror, path=self._folder / "0" / "availability.db"),
            dreamship=replace(config.dreamship, calls_per_minute=scenario.calls_per_minute),
            catalog=catalog,
            reconcile=replace(config.reconcile, settle=SETTLE),
        )
