"""Applying a new configuration to a running process: some keys need a restart."""

from __future__ import annotations

from msgspec.structs import replace

from syncd.config.settings import Config

# The process has opened or bound these.
FIXED_UNTIL_RESTART = (
    ("webhook", "listen"),
    ("webhook", "path"),
    ("mirror", "path"),
    ("admin", "listen"),
    ("control", "socket"),
)


def with_fixed(before: Config, after: Config) -> tuple[Config, list[str]]:
    """Return the new configuration, and the keys that keep their old value until a restart."""
    unchanged = []
    for section, key in FIXED_UNTIL_RESTART:
        old, new = getattr(before, section), getattr(after, section)
        if getattr(old, key) != getattr(new, key):
            unchanged.append(f"{section}.{key}")
            new = replace(new, **{key: getattr(old, key)})
            after = replace(after, **{section: new})
    return after, unchanged
