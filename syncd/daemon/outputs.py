"""The ways out of the mirror: the pushes and the publication. Nothing waits for either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from syncd.clock import Clock
from syncd.config import Config
from syncd.publish.manager import Publication
from syncd.push.manager import Pushes
from syncd.store import Database


class Outputs:
    """Starts, reconfigures and stops both together."""

    def __init__(self, database: Database, clock: Clock, config: Callable[[], Config]) -> None:
        self.pushes = Pushes(database, clock, config)
        self.publication = Publication(database, clock, config)

    async def start(self) -> None:
        """Start what the configuration has."""
        await self.pushes.start()
        await self.publication.start()

    async def reconfigure(self) -> None:
        """Use the configuration in force."""
        await self.pushes.reconfigure()
        await self.publication.reconfigure()

    async def close(self) -> None:
        """Stop both."""
        await asyncio.gather(self.pushes.close(), self.publication.close())
