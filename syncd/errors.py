"""Every way syncd fails, as exceptions that carry data, a hint and whether to try again.

Raise inward, translate once at each edge: an HTTP status in `web`, an exit code and two lines in
`cli`. No message or hint ever holds a secret.
"""

from __future__ import annotations

from datetime import datetime, timedelta


class SyncdError(Exception):
    """Something is wrong that a person can read in one line and act on in the next.

    `hint` is what to try. `retryable` says whether the same call may succeed later unchanged.
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


class UsageError(SyncdError):
    """The command was asked for something that makes no sense."""


class SourceError(SyncdError):
    """Dreamship did not answer what was asked.

    `wait_s`: the seconds that the answer asks to wait (`Retry-After`), None when it does not.
    """

    def __init__(self, message: str, *, hint: str = "", wait_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s


class SourceUnreachable(SourceError):
    """The network or the server failed; nothing was learned."""

    retryable = True


class SourceAnswerInvalid(SourceError):
    """An answer arrived and cannot be what the documentation describes; nothing was learned."""

    retryable = True


class SourceThrottled(SourceError):
    """Too many calls for one key."""

    retryable = True

    def __init__(self, message: str, *, wait_s: float | None) -> None:
        hint = "other programs share this key; lower calls_per_minute"
        super().__init__(message, hint=hint, wait_s=wait_s)


class SourceRefused(SourceError):
    """401 or 403 in Dreamship's own form: this key may not read what was asked.

    Only the list of items speaks for the key: every key may read it.
    """


class SourceGone(SourceError):
    """404 or 410 in Dreamship's own form: what was asked for does not exist at the source.

    `source_at`, `age` and `fresh_for` say how old that answer is, as those of `ItemRead` do.
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
    """There is no database where the configuration says."""


class MirrorIncompatible(MirrorError):
    """The file is not a mirror, is damaged, or is of another contract number."""


class MirrorLocked(MirrorError):
    """Another syncd process holds the mirror."""

    retryable = True


class BacklogFull(SyncdError):
    """More deliveries wait than can be made durable in time; Dreamship shall try again."""

    retryable = True


class Overloaded(SyncdError):
    """Too much is asked at once, or a question that takes too long; ask again later, or less."""

    retryable = True


class DaemonAbsent(SyncdError):
    """No daemon answers on the control socket; `was_reached`: one did, and broke off."""

    retryable = True

    def __init__(self, message: str, *, hint: str = "", was_reached: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.was_reached = was_reached


class ControlDenied(SyncdError):
    """There is a control socket, and this user may not use it."""
