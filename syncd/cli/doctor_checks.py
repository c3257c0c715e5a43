"""What `doctor` concludes: from what was seen to pass, warn or fail, and the one thing to do."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from msgspec import Struct

from syncd.core.read_age import NO_EVIDENCE_AGE
from syncd.core.signature import HEADER, INVALID, MISSING

Verdict = Literal["pass", "warn", "fail"]

# A webhook's timestamps are compared with Dreamship's own clock alone; a host this far off still
# tells the shop wrong ages.
CLOCK_WARN = timedelta(seconds=5)
CLOCK_FAIL = timedelta(minutes=5)


REACHES = "a signed delivery reaches the daemon from outside"


class Finding(Struct, frozen=True):
    """One check: what was looked at, how it is, and what to do about it."""

    check: str
    verdict: Verdict
    told: str
    hint: str = ""


class FileInfo(Struct, frozen=True):
    """One file or folder as the file system has it."""

    path: str
    mode: int
    group: str


def about_access(
    folders: Sequence[FileInfo], files: Sequence[FileInfo], missing: Sequence[str] = ()
) -> Finding:
    """Tell whether somebody who is only in the mirror's group can read it.

    `folders` lead to the mirror, outermost first; `files` are the database and what lies beside it;
    `missing` names what should lie there, too.
    """
    check = "the shop can read the mirror"
    if not files:
        return Finding(check, "warn", "there is no mirror yet", "start the daemon")
    for folder in folders:
        if not folder.mode & (stat.S_IXGRP | stat.S_IXOTH):
            return Finding(
                check,
                "fail",
                f"{folder.path} lets nobody but its owner through",
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
            f"{' and '.join(missing)} are gone, and without them SQLite refuses a reader that may "
            "not write: a program that closed the mirror last has deleted them",
            "any syncd command of the mirror's owner makes them again, and so does the daemon: run "
            "`syncd doctor` as its user once more; look into the mirror with `sqlite3 -readonly`",
        )
    for file in files:
        if file.mode & (stat.S_IWGRP | stat.S_IWOTH):
            return Finding(
                check,
                "warn",
                f"{file.path} can be written by others than its owner",
                f"chmod g-w,o-w {file.path}: readers need no write permission",
            )
    if all(file.mode & stat.S_IROTH for file in files):
        return Finding(check, "pass", "everybody can")
    return Finding(check, "pass", f"members of group {files[0].group} can")


def about_cache(age: timedelta) -> Finding:
    """Tell that the answer to a call was a copy, although a new one was asked for."""
    how_old = "of an unknown age" if age >= NO_EVIDENCE_AGE else f"{age.total_seconds():.0f} s old"
    return Finding(
        "Dreamship itself answers",
        "warn",
        f"a cache answered, with a copy {how_old}",
        "exempt dreamship.base_url from caching in the proxy that this host uses",
    )


def about_keys(files: Sequence[FileInfo]) -> Finding:
    """Tell whether strangers on this host can read a file that holds api keys, or change it."""
    check = "the api keys are in no file that everybody can read"
    for file in files:
        if file.mode & stat.S_IRWXO:
            return Finding(
                check, "warn", f"{file.path} is open to everybody", f"chmod o= {file.path}"
            )
    return Finding(check, "pass", ", ".join(file.path for file in files) or "they are in no file")


def about_connections(
    limit: int | None, most: int, open_files: int, *, is_running: bool
) -> Finding:
    """Tell whether the limit of open files allows as many connections as there may be.

    `limit`: how many it allows the running daemon (None: it does not say), or, without one, a
    daemon that was started as this process was. `most` take `open_files`.
    """
    check = "the limit of open files allows all connections"
    if limit is None:
        return Finding(check, "warn", "the daemon is older and does not say", "restart it")
    told = f"{limit} connections"
    if not is_running:
        told += " to a daemon that is started like this command"
    if limit >= most:
        return Finding(check, "pass", told)
    return Finding(
        check,
        "warn",
        f"{told}, not {most}",
        f"allow {open_files} open files, then restart the daemon: LimitNOFILE={open_files} in its "
        f"unit, or `ulimit -n {open_files}` before `syncd serve`",
    )


def about_clock(ahead: timedelta) -> Finding:
    """Tell whether this host's clock is right; `ahead` of Dreamship's."""
    check = "this host's clock agrees with Dreamship's"
    off_s = abs(ahead.total_seconds())
    way = "ahead" if ahead > timedelta() else "behind"
    told, hint = f"{off_s:.0f} s {way}", "turn on time synchronisation: timedatectl set-ntp true"
    if off_s >= CLOCK_WARN.total_seconds():
        verdict: Verdict = "fail" if off_s >= CLOCK_FAIL.total_seconds() else "warn"
        return Finding(check, verdict, told, hint)
    return Finding(check, "pass", "within a few seconds")


class Answer(Struct, frozen=True):
    """What came back for a test delivery of `size` bytes.

    `outcome` and `error` are syncd's own words, empty where something else answered; `server` and
    `location` are the headers of that name.
    """

    status: int
    size: int
    outcome: str = ""
    error: str = ""
    server: str = ""
    location: str = ""


def about_delivery(answer: Answer) -> Finding:
    """Tell what became of a signed test delivery sent to the public URL."""
    if answer.status == 200 and answer.outcome:  # noqa: PLR2004 - HTTP
        return Finding(REACHES, "pass", f"answered 200 {answer.outcome}")
    told = f"{answer.size:,} bytes were answered {answer.status}"
    if not answer.error:
        told += f", not by syncd but by {answer.server or 'something else'}"
    if answer.location:
        told += f", to {answer.location}"
    return Finding(REACHES, "fail", told, _what_to_do(answer))


def _what_to_do(answer: Answer) -> str:
    if 300 <= answer.status < 400:  # noqa: PLR2004
        return (
            "Dreamship posts to the URL as it is: have it passed on there, or write the final one"
        )
    if answer.error in _BY_WORDS:
        return _BY_WORDS[answer.error]
    if answer.error and answer.status in _OF_THE_DAEMON:
        return _OF_THE_DAEMON[answer.status]
    return _OF_OTHERS.get(answer.status, "see the log of whatever stands in front")


_BY_WORDS = {
    MISSING: f"something in front strips the header {HEADER}: have it passed on",
    INVALID: "something in front rewrites the body: have it passed on byte by byte; if nothing "
    "does, the daemon has other keys: systemctl reload syncd",
}
_OF_THE_DAEMON = {
    413: "the daemon has another webhook.max_body_bytes: systemctl reload syncd",
    503: "the daemon cannot keep deliveries: see `syncd status`",
}
_OF_OTHERS = {
    200: "something in front answers by itself: have webhook.path passed on to webhook.listen",
    401: "something in front wants a password: let webhook.path through without one",
    403: "something in front forbids it: let webhook.path through for everybody",
    404: "the path does not lead here: webhook.public_url, webhook.path and what is passed on in "
    "front must be the same",
    405: "something in front forbids POST: allow it for webhook.path",
    413: "something in front limits bodies: allow at least webhook.max_body_bytes",
    502: "something in front cannot reach webhook.listen: is the daemon up, is it the address?",
    503: "something in front limits requests, or is under maintenance: except webhook.path from it",
    504: "something in front waits in vain for webhook.listen: is it the address?",
}
