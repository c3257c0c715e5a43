"""All errors of syncd: exceptions with data, with a hint, and with the chance of another attempt.

    SyncdError
    ├── ConfigurationError
    │   └── ListingsInvalid
    ├── UsageError
    ├── SourceError
    │   ├── SourceUnreachable       (retryable)
    │   ├── SourceAnswerInvalid     (retryable)
    │   ├── SourceThrottled         (retryable)
    │   ├── SourceRefused
    │   └── SourceGone
    ├── MirrorError
    │   ├── MirrorUnavailable       (retryable)
    │   ├── MirrorMissing
    │   ├── MirrorIncompatible
    │   └── MirrorLocked            (retryable)
    ├── BacklogFull                 (retryable)
    ├── Overloaded                  (retryable)
    ├── TargetError                 (retryable)
    │   ├── TargetIncompatible
    │   └── TargetFenced            (retryable)
    ├── NotActive                   (retryable)
    ├── DaemonAbsent                (retryable)
    └── ControlDenied

Inner modules raise them. Each edge translates them once: `webhook`, `admin` and `control` into an
HTTP status, `cli` into an exit code and two lines. No message and no hint contains a secret.
"""

from __future__ import annotations

from datetime import datetime, timedelta


class SyncdError(Exception):
    """An error with a message of one line and a hint of one line.

    The message describes the error, and `hint` how to fix it. `retryable`: the same call may
    succeed later.
    """

    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(SyncdError):
    """The configuration cannot be used; `errors` has each error, with the name of its key."""

    def __init__(self, errors: list[str], *, hint: str = "") -> None:
        super().__init__("; ".join(errors), hint=hint)
        self.errors = errors


class ListingsInvalid(ConfigurationError):
    """The file `catalog.listings` cannot be used; `errors` has each error, with its line."""


class UsageError(SyncdError):
    """The arguments of a command or of a request are invalid."""


class SourceError(SyncdError):
    """A call to Dreamship failed.

    `wait_s`: the seconds to wait by the answer (`Retry-After`); None if it names none.
    """

    def __init__(self, message: str, *, hint: str = "", wait_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s


class SourceUnreachable(SourceError):
    """The network or the server failed; the call has no result."""

    retryable = True


class SourceAnswerInvalid(SourceError):
    """An answer does not have the documented form; the call has no result."""

    retryable = True


class SourceThrottled(SourceError):
    """Dreamship answered 429: too many calls for one key."""

    retryable = True

    def __init__(self, message: str, *, wait_s: float | None) -> None:
        hint = "other programs share this key; lower calls_per_minute"
        super().__init__(message, hint=hint, wait_s=wait_s)


class SourceRefused(SourceError):
    """401 or 403 in Dreamship's own form: this key may not read the resource.

    Only a refusal of the list of items concerns the key itself: every key may read the list.
    """


class SourceGone(SourceError):
    """404 or 410 in Dreamship's own form: the resource does not exist.

    `source_at`, `age` and `fresh_for` describe the age of the answer, like those of `ItemRead`.
    """

    source_at: datetime | None = None
    age: timedelta = timedelta()
    fresh_for: timedelta | None = None


class MirrorError(SyncdError):
    """The database file cannot be used."""


class MirrorUnavailable(MirrorError):
    """A transaction could not be made durable now (disk full, locked, I/O error)."""

    retryable = True


class MirrorMissing(MirrorError):
    """There is no database at the configured path."""


class MirrorIncompatible(MirrorError):
    """The file is not a mirror, is damaged, or is of another contract number."""


class MirrorLocked(MirrorError):
    """Another syncd process has locked the mirror."""

    retryable = True


class BacklogFull(SyncdError):
    """More deliveries wait than can be made durable in time; Dreamship repeats this one."""

    retryable = True


class Overloaded(SyncdError):
    """Too many requests run at the same time, or one query takes too long."""

    retryable = True


class TargetError(SyncdError):
    """The database of `[publish]` cannot be used now.

    `is_conflict`: another transaction was in the way, and the same one may succeed at once.
    """

    retryable = True

    def __init__(self, message: str, *, hint: str = "", is_conflict: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_conflict = is_conflict


class TargetIncompatible(TargetError):
    """The tables of the target are missing, or a newer syncd made them."""

    retryable = False


class TargetFenced(TargetError):
    """Another syncd has the lease of this source, so this one publishes nothing.

    `host`: the host of the other one, None if it is not known.
    """

    def __init__(self, message: str, *, host: str | None = None) -> None:
        super().__init__(message)
        self.host = host


class NotActive(SyncdError):
    """The daemon of another host is active, so the one of this host waits."""

    retryable = True


class DaemonAbsent(SyncdError):
    """No daemon answers on the control socket; `was_reached`: its answer was incomplete."""

    retryable = True

    def __init__(self, message: str, *, hint: str = "", was_reached: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.was_reached = was_reached


class ControlDenied(SyncdError):
    """The user may not use the control socket."""
