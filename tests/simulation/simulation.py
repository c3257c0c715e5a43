"""One run: a world, a daemon that is started and killed in it, and checks of its mirror."""

from __future__ import annotations

import asyncio
import contextlib
import re
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
from simulation.truth import BLOCKED, Truth
from simulation.witness import StepRecorder
from simulation.world import CATEGORIES, SOLD, World
from syncd.config import Config
from syncd.config.settings import Availability
from syncd.core import payload
from syncd.errors import MirrorUnavailable

# A file system in memory, if there is one: synchronous writes are fast there.
FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
SETTLE = timedelta(seconds=60)
# The log events of errors that nothing expects.
_UNEXPECTED = re.compile("no known reason|unexpected error")
TICK_S = 30.0
POLL_S, LONGEST_POLL_S = 20.0, 600.0
# Ten pauses of an hour in a row are no endless loop yet.
QUIET_WITHIN_S = 4 * 24 * 3600.0
SWEEPS_AT_MOST = 40


@dataclass
class Report:
    """The result of a run; `error` None: all checks passed."""

    seed: int
    error: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)


def simulate(seed: int, *, scenario: Scenario | None = None, verbose: bool = False) -> Report:
    """Run the world of a seed in a temporary folder, and return the result."""
    folder = Path(tempfile.mkdtemp(prefix="syncd-simulation-", dir=FOLDER))
    configured = structlog.get_config()
    report = Report(seed)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            run = _Run(scenario or drawn(seed), folder, report, verbose=verbose)
            structlog.configure(processors=[run.on_log_event], cache_logger_on_first_use=False)
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
        self.witness = StepRecorder()
        self._beside: set[asyncio.Task[object]] = set()
        self._is_rough = True

    def on_log_event(self, logger: object, method: str, event: structlog.types.EventDict) -> str:
        """Receive one log event of the daemon; an unexpected error fails the run."""
        del logger
        self.trace(f"log: {method} {event}")
        if _UNEXPECTED.search(str(event.get("event"))):
            self.checks.fail(f"the daemon logs: {event}")
        raise structlog.DropEvent

    def trace(self, line: str) -> None:
        """Add a line to the trace."""
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
            trace=self.trace,
        )
        self.witness.on_unchanged = self.checks.unchanged
        self.source = Source(
            self.truth,
            scenario,
            now=self._now,
            awake=self._awake,
            knows_clock=lambda: self.process.services.remote_clock.answers > 0,
            trace=self.trace,
        )
        self.post = Post(self.truth, scenario, self._submit, self.trace)
        self.world = World(self.truth, scenario, self.post, self.trace)
        self.trace(str(scenario))
        self.world.begin()
        config = self._config()
        self._catalog = config.catalog
        await self._start_daemon(config)
        script = asyncio.create_task(self._script())
        ticking = asyncio.create_task(self._tick())
        failure = asyncio.create_task(self.checks.failed.wait())
        await asyncio.wait({script, failure}, return_when=asyncio.FIRST_COMPLETED)
        if script.done() and script.exception() is not None:
            self.checks.fail(f"{script.exception()!r}")
        ticking.cancel()
        await self._end()

    async def _script(self) -> None:
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
            if scenario.is_reported:
                checks.compare(removals=False, in_scope=self._in_scope)
        self.source.is_mild = True
        self.process.heal()
        # The last changes must be visible, and all deliveries settled.
        await asyncio.sleep(60 + scenario.lag_s + scenario.lead_s)
        await self._sweep()
        checks.compare(removals=True, in_scope=self._in_scope)
        checks.check_stored(self._answered)
        if self.source.most_in_a_window > scenario.calls_per_minute:
            checks.fail(f"{self.source.most_in_a_window} calls in a minute of the source's clock")

    async def _sweep(self) -> None:
        """Sweep the whole catalogue, from now on."""
        process = self.process
        for _ in range(SWEEPS_AT_MOST):
            sweep_id, _ = await process.services.sweep_manager.request(
                "operator", accept_removals=self._are_removals_held()
            )

            def ended(sweep_id: int = sweep_id) -> bool:
                last = process.last_sweep
                return last is not None and last.sweep_id >= sweep_id

            await self._until(ended, "the sweep does not end")
            await self._quiet()
            if process.last_sweep is not None and process.last_sweep.result == "complete":
                return
        self.checks.fail("no sweep is ever complete")

    def _are_removals_held(self) -> bool:
        """Return whether the status asks an operator to accept removals."""
        absent = self.checks.query("SELECT 1 FROM variants WHERE missing_since IS NOT NULL LIMIT 1")
        return bool(absent)

    async def _quiet(self) -> None:
        """Wait until no call is left, as an operator who accepts all removals."""
        waited: list[int] = []

        def is_quiet() -> bool:
            last = self.process.last_sweep
            is_new = last is not None and last.sweep_id not in waited
            if is_new and last is not None:
                waited.append(last.sweep_id)
                if last.removals_held:
                    self._begin_beside(self._accept())
            return self._is_quiet()

        await self._until(is_quiet, "there is always another call to make")

    async def _accept(self) -> None:
        with contextlib.suppress(MirrorUnavailable):
            await self.process.services.sweep_manager.request("operator", accept_removals=True)

    def _begin_beside(self, work: Coroutine[Any, Any, object]) -> None:
        """Run `work` at the same time, as a part of the daemon's life."""
        task = asyncio.create_task(self.process.run(work))
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _is_quiet(self) -> bool:
        query = self.checks.query
        last = query(
            """SELECT result FROM sweeps
               WHERE is_catalogue AND (ended_at IS NOT NULL OR NOT is_paced)
               ORDER BY sweep_id DESC LIMIT 1"""
        )
        return (
            last == [("complete",)]
            and not query("SELECT 1 FROM refresh_queue LIMIT 1")
            and not query("SELECT 1 FROM unplaced_variants WHERE not_found_at IS NULL LIMIT 1")
        )

    async def _until(self, true: Callable[[], bool], error: str) -> None:
        loop = asyncio.get_running_loop()
        last_s = loop.time() + QUIET_WITHIN_S
        wait_s = POLL_S
        while not true():
            if loop.time() > last_s:
                self.checks.fail(error)
            await asyncio.sleep(wait_s)
            wait_s = min(LONGEST_POLL_S, wait_s * 1.2)

    async def _tick(self) -> None:
        while self.scenario.is_calm:
            await asyncio.sleep(TICK_S)
            self.checks.tick()

    async def _deaths(self) -> None:
        """Stop or kill the daemon, as often as the scenario has it."""
        chance = self.scenario.chance("deaths")
        for _ in range(self.scenario.deaths):
            await asyncio.sleep(chance.uniform(0, 1.5 * self.scenario.horizon_s))
            await self._running.wait()
            process = self.process
            if chance.random() < 0.3:
                self.trace("daemon: stops")
                await process.stop()
            else:
                process.death = (chance.choice(["before", "after"]), chance.randrange(12))
                await process.died.wait()
            self.report.counts["deaths"] += 1
            config = process.next_config()
            await asyncio.sleep(chance.choice([0.0, 1.0, 20.0, 400.0]))
            await self._running.wait()
            await self._start_daemon(config)

    async def _steps(self) -> None:
        """Set the wall clock of the host; the daemon checks it within a second."""
        loop, chance = asyncio.get_running_loop(), self.scenario.chance("steps")
        for at_s, by_s in self.scenario.clock_steps:
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            self.trace(f"host: its clock is set by {by_s} s")
            self.report.counts["clock steps"] += 1
            self.host.offset += timedelta(seconds=by_s)
            await self._check_clock_after(chance.random())

    async def _naps(self) -> None:
        """Let the host stand still while the world goes on."""
        loop, chance = asyncio.get_running_loop(), self.scenario.chance("naps")
        for at_s, length_s, is_counted in self.scenario.naps:
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            self.trace(f"host: stands still for {length_s} s, {is_counted=}")
            self.report.counts["naps"] += 1
            self._running.clear()
            self.process.clock.awake.clear()
            await asyncio.sleep(length_s)
            if not is_counted:
                self.host.stolen_s += length_s
            self.process.clock.awake.set()
            self._running.set()
            self.trace("host: continues")
            await self._check_clock_after(chance.random())

    async def _check_clock_after(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        process = self.process
        if process.is_up and not process.is_dead and process.clock.awake.is_set():
            await process.run(process.check_clock())

    def _now(self) -> datetime:
        return self.process.clock.now()

    async def _awake(self) -> None:
        await self.process.clock.awake.wait()

    async def _start_daemon(self, config: Config) -> None:
        """Start a daemon."""
        self.trace("daemon: starts")
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
            trace=self.trace,
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
        counts["reported"] = int(self.scenario.is_reported)
        counts["calm"] = int(self.scenario.is_calm)
        counts["calls"] = len(self.source.calls_at)
        counts["reads"] = self.checks.reads
        counts["throttles"] = self.source.throttled
        counts["failed calls"] = self.source.failed
        counts["transactions"] = self.checks.transactions
        self.report.error = self.checks.error

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
            # With an item that does not exist yet, and may never exist.
            chosen = (*list(self.truth.items)[::2], self.truth.next_id)
            catalog = replace(catalog, items=chosen)
        elif scenario.scope == "categories":
            catalog = replace(catalog, categories=CATEGORIES[: 1 + scenario.seed % 2])
        return replace(
            config,
            availability=Availability(
                sellable=tuple(sorted(SOLD)),
                blocked_item_statuses=(BLOCKED,) if scenario.statuses else (),
            ),
            mirror=replace(config.mirror, path=self._folder / "0" / "availability.db"),
            dreamship=replace(config.dreamship, calls_per_minute=scenario.calls_per_minute),
            catalog=catalog,
            reconcile=replace(
                config.reconcile, settle=SETTLE, background_calls_per_minute=scenario.background
            ),
        )
