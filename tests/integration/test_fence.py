"""A publisher that stops anywhere in a transaction cannot write after another one took over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import targets
from publishing import Mirror, is_equal, published, publishing, until
from targets import CuttingProxy, Database

from syncd.publish import publisher
from syncd.publish.lease import Terms

# More requests than a transaction of one change has.
MOST_REQUESTS = 20
TERMS = Terms(lease_s=1.5)
# PyMySQL leaves the socket of a connection that failed to the garbage collector.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(scope="module", params=[targets.Postgresql, targets.Mariadb], ids=["pg", "maria"])
def target(request: pytest.FixtureRequest) -> Iterator[Database]:
    with targets.running(request.param) as server:
        yield server.database()


class Stopping:
    """Holds one request of a publisher, as if its process was stopped before or after it."""

    def __init__(self, port: int, number: int) -> None:
        self.proxy = CuttingProxy(port)
        self.proxy.on_request = self._pass
        self.proxy.on_answer = self._answer
        self.number = number
        self.is_armed = False
        self.is_held = False
        self._goes_on = threading.Event()
        self._seen = 0

    def _pass(self, piece: bytes) -> bool:
        del piece
        if self.is_armed and not self.is_held:
            self._seen += 1
            if self._seen == self.number:
                self.is_held = True
                self._goes_on.wait(30)
        return True

    def _answer(self, piece: bytes) -> bool:
        """Hold the answers too: a process that is stopped reads nothing."""
        del piece
        if self.is_held:
            self._goes_on.wait(30)
        return True

    def go_on(self) -> None:
        self._goes_on.set()

    def close(self) -> None:
        self.go_on()
        self.proxy.close()


def test_a_publisher_that_stops_between_any_two_statements_is_fenced(
    target: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One source for each request of a transaction, all at the same time."""
    monkeypatch.setattr(publisher, "FENCED_WAIT_S", 0.2)
    step = 2 if target.server.kind == "postgresql" else 5
    numbers = range(1, MOST_REQUESTS, step)
    with ExitStack() as stack:
        mirror = stack.enter_context(closing(Mirror(tmp_path / "first")))
        other = stack.enter_context(closing(Mirror(tmp_path / "second")))
        for one in (mirror, other):
            one.item(1)
            one.change(1, "in_stock")
        stops = [stack.enter_context(closing(Stopping(target.server.port, n))) for n in numbers]

        def start(at: Mirror, number: int, port: int) -> Any:
            url = target.target_url(port=port)
            source = f"s{number}"
            return stack.enter_context(publishing(url, at.path, source=source, terms=TERMS))

        firsts = [start(mirror, stop.number, stop.proxy.port) for stop in stops]
        until(lambda: all(published(one, mirror) for one in firsts))
        for stop in stops:
            stop.is_armed = True
        mirror.change(1, "out_of_stock")
        until(
            lambda: all(
                stop.is_held or published(one, mirror)
                for stop, one in zip(stops, firsts, strict=True)
            )
        )
        held = [(stop, one) for stop, one in zip(stops, firsts, strict=True) if stop.is_held]
        assert len(held) >= len(stops) // 2
        other.change(1, "back_soon")
        seconds = [start(other, stop.number, target.server.port) for stop, _ in held]
        try:
            until(lambda: all(published(one, other) for one in seconds))
        finally:
            for stop in stops:
                stop.go_on()
        until(lambda: all(one.state.state == "fenced" for _, one in held))
        for stop, _ in held:
            assert is_equal(other, target, f"s{stop.number}")
        epochs = target.query(
            f"""SELECT v.source, v.epoch, s.epoch AS last FROM {target.prefix}variants v
                JOIN {target.prefix}sources s ON s.source = v.source"""  # noqa: S608 - names
        )
        taken = {f"s{stop.number}" for stop, _ in held}
        assert all(row["epoch"] == row["last"] == 2 for row in epochs if row["source"] in taken)
