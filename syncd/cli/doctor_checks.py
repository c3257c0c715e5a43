"""The checks of `doctor`: from observations to pass, warn or fail, with one remedy."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from msgspec import Struct

from syncd.core.lease import WAITING
from syncd.core.read_age import NO_EVIDENCE_AGE
from syncd.core.signature import HEADER, INVALID, MISSING
from syncd.core.snapshots import DeadListings
from syncd.errors import ListingsInvalid

Verdict = Literal["pass", "warn", "fail"]

# syncd itself compares timestamps of deliveries with Dreamship's clock only. But the shop compares
# the times in the mirror with this host's clock.
CLOCK_WARN = timedelta(seconds=5)
CLOCK_FAIL = timedelta(minutes=5)

DELIVERY_CHECK = "a signed delivery reaches the daemon from outside"


class Finding(Struct, frozen=True, rename={"detail": "told"}):
    """The result of one check, and its remedy. JSON keeps the key `told` of version 0.1.0."""

    check: str
    verdict: Verdict
    detail: str
    hint: str = ""


class FileInfo(Struct, frozen=True):
    """The path, the mode and the group of a file or folder."""

    path: str
    mode: int
    group: str


def check_access(
    folders: Sequence[FileInfo], files: Sequence[FileInfo], missing: Sequence[str] = ()
) -> Finding:
    """Check whether a member of the mirror's group can read the mirror.

    `folders` lead to the mirror, outermost first. `files` are the database, `-wal` and `-shm`, as
    far as they exist. `missing` names those that do not exist although SQLite needs them.
    """
    check = "the shop can read the mirror"
    if not files:
        return Finding(check, "warn", "there is no mirror yet", "start the daemon")
    for folder in folders:
        if not folder.mode & (stat.S_IXGRP | stat.S_IXOTH):
            return Finding(
                check,
                "fail",
                f"only the owner of {folder.path} can enter it",
                f"chmod g+x {folder.path}, and put the shop's user into group {folder.group}",
            )
    for file in files:
        if not file.mode & (stat.S_IRGRP | stat.S_IROTH):
            return Finding(
                check, "fail", f"{file.path} cannot be read by its group", f"chmod g+r {file.path}"
            )
    if missing:
        return Finding(
            check,
            "fail",
            f"{' and '.join(missing)} are missing, and without them SQLite refuses a reader that "
            "cannot write: the program that closed the mirror last has deleted them",
            "run `syncd doctor` once more as the daemon's user, which creates them; a start of the "
            "daemon creates them too; open the mirror with `sqlite3 -readonly`",
        )
    for file in files:
        if file.mode & (stat.S_IWGRP | stat.S_IWOTH):
            return Finding(
                check,
                "warn",
                f"users other than its owner can write {file.path}",
                f"chmod g-w,o-w {file.path}: readers need no write permission",
            )
    if all(file.mode & stat.S_IROTH for file in files):
        return Finding(check, "pass", "every user can read it")
    return Finding(check, "pass", f"members of group {files[0].group} can read it")


def warn_of_cache(age: timedelta) -> Finding:
    """Warn that a cache answered a call with a copy, although the call asked for a new answer."""
    description = (
        "of an unknown age" if age >= NO_EVIDENCE_AGE else f"{age.total_seconds():.0f} s old"
    )
    return Finding(
        "Dreamship itself answers",
        "warn",
        f"a cache answered, with a copy {description}",
        "exempt dreamship.base_url from caching in the proxy that this host uses",
    )


def check_keys(files: Sequence[FileInfo]) -> Finding:
    """Check whether other users of this host can read or change a file with api keys."""
    check = "the api keys are in no file that everybody can read"
    for file in files:
        if file.mode & stat.S_IRWXO:
            return Finding(
                check, "warn", f"every user can access {file.path}", f"chmod o= {file.path}"
            )
    return Finding(check, "pass", ", ".join(file.path for file in files) or "no file has them")


_NOT_KNOWN = "not known before the first sweep has ended"
_SWEEP = "wait for it; a host that waits for another one has its first sweep after it takes over"


def check_values(sold: dict[str, int], unlisted: dict[str, int]) -> Finding:
    """Check the values that the catalogue has, each with its number of variants."""
    check = "the values that may be sold"
    if not sold and not unlisted:
        return Finding(check, "warn", _NOT_KNOWN, _SWEEP)
    detail = f"sold: {_counted(sold)}; not sold: {_counted(unlisted)}"
    hint = "add each value that may be sold to availability.sellable, then reload"
    if not sold:
        return Finding(check, "fail", f"nothing can be sold; {detail}", hint)
    return Finding(check, "pass", f"{detail}; {hint}" if unlisted else detail)


def _counted(values: dict[str, int]) -> str:
    return ", ".join(f"{value!r} ({count:,} variants)" for value, count in values.items()) or "none"


def check_listings(
    skus: int, dead: DeadListings, error: ListingsInvalid | None, *, is_filled: bool
) -> Finding:
    """Check the file catalog.listings, and whether each of its SKUs leads to a variant.

    `is_filled`: the mirror has variants. Without any, no SKU is known to lead nowhere.
    """
    check = "each SKU of the shop leads to a variant"
    if error is not None:
        return Finding(check, "fail", f"catalog.listings: {error.message}", error.hint)
    if dead.count:
        more = dead.count - len(dead.first)
        named = ", ".join(dead.first) + (f" and {more} more" if more else "")
        hint = "`syncd listings --unknown` lists them; correct the file"
        return Finding(check, "warn", f"{dead.count} of {skus} do not: {named}", hint)
    if not is_filled:
        return Finding(check, "warn", _NOT_KNOWN, _SWEEP)
    return Finding(check, "pass", f"{skus} SKU{'s' * (skus != 1)}")


def check_connections(
    limit: int | None, required: int, open_files: int, *, is_running: bool
) -> Finding:
    """Check whether the limit of open files allows the `required` connections.

    `limit` is the number of connections that it allows the running daemon (None: the daemon does
    not report it). Without a daemon, it is the number for a daemon with the limits of this process.
    `open_files` is the limit that the required connections need.
    """
    check = "the limit of open files allows all connections"
    if limit is None:
        return Finding(
            check, "warn", "the daemon is older and does not report it", "restart the daemon"
        )
    detail = f"{limit} connections"
    if not is_running:
        detail += " for a daemon with the limits of this command"
    if limit >= required:
        return Finding(check, "pass", detail)
    return Finding(
        check,
        "warn",
        f"{detail}, not {required}",
        f"allow {open_files} open files, then restart the daemon: LimitNOFILE={open_files} in its "
        f"unit, or `ulimit -n {open_files}` before `syncd serve`",
    )


def check_clock(ahead: timedelta) -> Finding:
    """Check how far this host's clock is ahead of Dreamship's clock."""
    check = "this host's clock agrees with Dreamship's"
    off_s = abs(ahead.total_seconds())
    direction = "ahead" if ahead > timedelta() else "behind"
    detail, hint = (
        f"{off_s:.0f} s {direction}",
        "turn on time synchronisation: timedatectl set-ntp true",
    )
    if off_s >= CLOCK_WARN.total_seconds():
        verdict: Verdict = "fail" if off_s >= CLOCK_FAIL.total_seconds() else "warn"
        return Finding(check, verdict, detail, hint)
    return Finding(check, "pass", "within a few seconds")


class Answer(Struct, frozen=True):
    """The answer to a test delivery of `size` bytes.

    `outcome` and `error` come from an answer of syncd, and are empty if another server answered.
    `server` and `location` are the headers of that name.
    """

    status: int
    size: int
    outcome: str = ""
    error: str = ""
    server: str = ""
    location: str = ""


def check_delivery(answer: Answer) -> Finding:
    """Check the answer to a signed test delivery that was sent to the public URL."""
    if answer.status == 200 and answer.outcome:  # noqa: PLR2004 - HTTP
        return Finding(DELIVERY_CHECK, "pass", f"answered 200 {answer.outcome}")
    detail = f"{answer.size:,} bytes were answered {answer.status}"
    if not answer.error:
        detail += f", not by syncd but by {answer.server or 'another server'}"
    if answer.location:
        detail += f", to {answer.location}"
    return Finding(DELIVERY_CHECK, "fail", detail, _hint(answer))


def _hint(answer: Answer) -> str:
    if 300 <= answer.status < 400:  # noqa: PLR2004
        return (
            "Dreamship follows no redirects: let the web server pass deliveries on, or set "
            "webhook.public_url to the final URL"
        )
    if answer.error in _HINTS_BY_ERROR:
        return _HINTS_BY_ERROR[answer.error]
    if answer.error and answer.status in _HINTS_FOR_SYNCD:
        return _HINTS_FOR_SYNCD[answer.status]
    return _HINTS_FOR_PROXIES.get(answer.status, "see the log of the web server in front")


_HINTS_BY_ERROR = {
    MISSING: f"a server in front removes the header {HEADER}: let it pass the header on",
    INVALID: "a server in front rewrites the body: let it pass the body on unchanged; if no server "
    "does, the daemon has other keys: systemctl reload syncd",
    WAITING: "the URL leads to the waiting host: let the proxy in front send deliveries to the "
    "active host (syncd/docs/publish.md)",
}
_HINTS_FOR_SYNCD = {
    413: "the daemon has another webhook.max_body_bytes: systemctl reload syncd",
    503: "the daemon cannot store deliveries: see `syncd status`",
}
_HINTS_FOR_PROXIES = {
    200: "a server in front answers by itself: let it pass webhook.path on to webhook.listen",
    401: "a server in front asks for a password: allow webhook.path without one",
    403: "a server in front forbids it: allow webhook.path for every client",
    404: "the path does not lead to syncd: webhook.public_url, webhook.path and the path that the "
    "web server passes on must be the same",
    405: "a server in front forbids POST: allow it for webhook.path",
    413: "a server in front limits bodies: allow at least webhook.max_body_bytes",
    502: "a server in front cannot reach webhook.listen: check the address and the daemon",
    503: "a server in front limits requests, or is under maintenance: exempt webhook.path from it",
    504: "a server in front gets no answer from webhook.listen: check its address",
}
