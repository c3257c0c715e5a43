"""The outputs of the mirror: pushes and publication. Deliveries and reads wait for neither."""

from __future__ import annotations

import asyncio

from syncd.clock import Clock
from syncd.config.runtime import ActiveConfig
from syncd.publish.manager import Publication
from syncd.push.manager import Pushes
from syncd.store import Database


class Outputs:
    """Reconfigures and stops both together. `Standby` starts the pushes."""

    def __init__(self, database: Database, clock: Clock, active: ActiveConfig) -> None:
        self.pushes = Pushes(database, clock, lambda: active.current.config)
        self.publication = Publication(database, clock, active)

    async def reconfigure(self) -> None:
        """Use the configuration in force."""
        if self.publication.turn.is_active:
            await self.pushes.reconfigure()
        await self.publication.reconfigure()

    async def close(self) -> None:
        """Stop both."""
        await asyncio.gather(self.pushes.close(), self.publication.close())
