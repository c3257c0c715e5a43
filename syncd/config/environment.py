"""Checks of the process environment, shared by `check-config`, `serve` and `doctor`.

Each error names the variable or the limit, and has a hint. The checks run before the daemon opens
anything, so a daemon that cannot reach Dreamship never answers a health check.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Mapping

from syncd import http_client
from syncd.config import Config
from syncd.errors import ConfigurationError

# Listeners, the mirror with its readers, and connections; an idle daemon has 25 open.
MIN_DESCRIPTORS = 64
# The write-ahead log at its largest, and a small mirror.
MIN_FILE_BYTES = 16 * 1024 * 1024
_THREADS = 4


def require_network(config: Config, environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError if the environment prevents calls to one of the addresses."""
    errors: list[str] = []
    hints: list[str] = []
    base_url = config.dreamship.base_url
    for key, url, is_direct in (
        ("dreamship.base_url", base_url, not base_url.startswith("https:")),
        ("notify.url", config.notify.url, False),
        *(
            (f"push[{number}].url", push.url, push.url.startswith("http:"))
            for number, push in enumerate(config.push, 1)
        ),
    ):
        try:
            if url:
                http_client.check(url, environ, is_direct=is_direct)
        except ConfigurationError as error:
            # A bad variable affects every address, and is reported once.
            errors += [
                f"{message} (for {key})" for message in error.errors if error.hint not in hints
            ]
            hints.append(error.hint)
    if errors:
        raise ConfigurationError(errors, hint="; ".join(dict.fromkeys(hints)))


def require_limits() -> None:
    """Raise ConfigurationError with each limit of this process that is too low."""
    errors = [
        *_limit(resource.RLIMIT_NOFILE, "RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)", MIN_DESCRIPTORS),
        *_limit(resource.RLIMIT_FSIZE, "RLIMIT_FSIZE (ulimit -f, LimitFSIZE=)", MIN_FILE_BYTES),
    ]
    if not _has_threads():
        errors.append(
            "RLIMIT_NPROC (ulimit -u, TasksMax=) or RLIMIT_AS (ulimit -v): no thread can be started"
        )
    if errors:
        raise ConfigurationError(errors, hint="raise the limit, or start syncd without it")


def _limit(resource_id: int, name: str, lowest: int) -> list[str]:
    soft, _ = resource.getrlimit(resource_id)
    if soft == resource.RLIM_INFINITY or soft >= lowest:
        return []
    return [f"{name}: is {soft}, and must be at least {lowest}"]


def _has_threads() -> bool:
    """Return whether this process can start as many threads as it needs at once."""
    done = threading.Event()
    started = []
    try:
        for _ in range(_THREADS):
            thread = threading.Thread(target=done.wait)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):
        return False
    finally:
        done.set()
        for thread in started:
            thread.join()
    return True
