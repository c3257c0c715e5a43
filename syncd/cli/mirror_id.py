"""The id of the mirror, for commands that run beside a daemon or without one."""

from __future__ import annotations

from contextlib import closing

from syncd.config import Config
from syncd.errors import MirrorError
from syncd.store import Queries, pushes


def mirror_id(config: Config) -> str | None:
    """Return the id of the mirror; None if it has none yet, or cannot be read."""
    try:
        with closing(Queries(config.mirror.path)) as queries:
            return queries.run(pushes.mirror_id)
    except MirrorError:
        return None
