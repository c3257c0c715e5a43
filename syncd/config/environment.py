"""Whether syncd can work where it was started: one check for `check-config`, `serve` and `doctor`.

Each fault names the variable or the limit and comes with what to try. It is looked for before
anything is opened, so that a daemon that cannot reach Dreamship never answers a health check first.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Mapping

from syncd import http_client
from syncd.config import Config
from syncd.errors import ConfigurationError

# Listeners, the mirror with its readers, and connections; 25 are open when nothing happens yet.
MIN_DESCRIPTORS = 64
# What the log may grow to before it is copied into the mirror, and some of the mirror itself.
MIN_FILE_BYTES = 16 * 1024 * 1024
_THREADS = 4


def require_network(config: Config, environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError when Dreamship or notify.url cannot be reached from here."""
    faults: list[str] = []
    hints: list[str] = []
    base_url = config.dreamship.base_url
    for key, url, is_direct in (
        ("dreamship.base_url", base_url, not base_url.startswith("https:")),
        ("notify.url", config.notify.url, False),
    ):
        try:
            if url:
                http_client.check(url, environ, is_direct=is_direct)
        except ConfigurationError as fault:
            # A variable spoils every address alike, and is told once.
            faults += [f"{one} (for {key})" for one in fault.faults if fault.hint not in hints]
            hints.append(fault.hint)
    if faults:
        raise ConfigurationError(faults, hint="; ".join(dict.fromkeys(hints)))


def require_limits() -> None:
    """Raise ConfigurationError naming the limits of this process that are too low."""
    faults = [
        *_limit(resource.RLIMIT_NOFILE, "RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)", MIN_DESCRIPTORS),
        *_limit(resource.RLIMIT_FSIZE, "RLIMIT_FSIZE (ulimit -f, LimitFSIZE=)", MIN_FILE_BYTES),
    ]
    if not _has_threads():
        faults.append(
            "RLIMIT_NPROC (ulimit -u, TasksMax=) or RLIMIT_AS (ulimit -v): no thread can be started"
        )
    if faults:
        raise ConfigurationError(faults, hint="raise the limit, or start it where there is none")


def _limit(which: int, name: str, lowest: int) -> list[str]:
    soft, _ = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or soft >= lowest:
        return []
    return [f"{name}: is {soft}, and {lowest} is the least"]


def _has_threads() -> bool:
    """Tell whether this process may have as many threads as it needs at once."""
    over = threading.Event()
    started = []
    try:
        for _ in range(_THREADS):
            thread = threading.Thread(target=over.wait)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):
        return False
    finally:
        over.set()
        for thread in started:
            thread.join()
    return True
