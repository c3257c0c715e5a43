"""The messages on the control socket: the same types for the client and the server.

`GET /status` returns the status document. `POST /reconcile` takes a `ReconcileRequest`; without
items it reads the catalogue. It returns JSON lines: `{"progress": …}` several times, and at last
`{"summary": …}`, `{"dry_run": …}` or `{"error": …}`. `POST /replay` takes a `ReplayRequest` and
returns the outcome of each delivery. `POST /push` takes a `PushRequest`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from syncd.core.jobs import SweepSummary
from syncd.core.model import MAX_ID, JsonObject
from syncd.core.records import Change
from syncd.errors import DaemonAbsent, Overloaded, SourceError, SyncdError, UsageError


class ReconcileRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /reconcile`."""

    items: list[int] = []
    accept_removals: bool = False
    dry_run: bool = False


class ReplayRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /replay`: deliveries by id, or every quarantined one."""

    ids: list[int] = []
    quarantined: bool = False


class PushRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /push`: the change after which a push continues, 0: with a full copy."""

    name: str
    seq: Annotated[int, Meta(ge=0, le=MAX_ID)]


class Progress(Struct, frozen=True):
    """How far a sweep is; `joined`: the request joined a sweep that was already running."""

    checked: int
    total: int | None
    eta_seconds: float | None
    joined: bool = False


class Differences(Struct, frozen=True):
    """The result of a dry run: the summary of a sweep, and the changes it would have written."""

    summary: SweepSummary
    differences: list[Change]


ReconcileMessage = Progress | SweepSummary | Differences

# The key of each message in a line of the answer to `POST /reconcile`.
MESSAGE_TYPES: dict[str, type[ReconcileMessage]] = {
    "progress": Progress,
    "summary": SweepSummary,
    "dry_run": Differences,
}
# The errors that have the same type at the client, and so the same exit code.
ERROR_TYPES: dict[str, type[SyncdError]] = {
    "usage": UsageError,
    "source": SourceError,
    "absent": DaemonAbsent,
    "overloaded": Overloaded,
}


def encode_error(error: SyncdError) -> JsonObject:
    """Return an error as a document."""
    kind = next((name for name, type_ in ERROR_TYPES.items() if isinstance(error, type_)), "")
    return {"error": error.message, "hint": error.hint, "kind": kind}


def decode_error(document: JsonObject) -> SyncdError:
    """Return the error that a document describes; an unknown kind becomes a SyncdError."""
    error_type = ERROR_TYPES.get(document.get("kind", ""), SyncdError)
    return error_type(document.get("error", "?"), hint=document.get("hint", ""))
