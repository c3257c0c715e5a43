"""What another configuration changes in a process that runs, and what waits for its restart."""

from __future__ import annotations

from msgspec.structs import replace

from syncd.config.settings import Config

# What a process has opened or bound, it keeps.
FIXED_UNTIL_RESTART = (
    ("webhook", "listen"),
    ("webhook", "path"),
    ("mirror", "path"),
    ("admin", "listen"),
    ("control", "socket"),
)


def with_fixed(before: Config, after: Config) -> tuple[Config, list[str]]:
    """Return the new configuration with what only a restart changes as it was, and its keys."""
    waiting = []
    for section, key in FIXED_UNTIL_RESTART:
        old, new = getattr(before, section), getattr(after, section)
        if getattr(old, key) != getattr(new, key):
            waiting.append(f"{section}.{key}")
            kept = replace(new, **{key: getattr(old, key)})
            after = replace(after, **{section: kept})
    return after, waiting
