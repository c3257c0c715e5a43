"""What `doctor` concludes: from what was seen to pass, warn or fail, and the one thing to do."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from msgspec import Struct

Verdict = Literal["pass", "warn", "fail"]

# A webhook's timestamps are compared with Dreamship's own clock alone; a host this far off still
# tells the shop wrong ages.
CLOCK_WARN = timedelta(seconds=5)
CLOCK_FAIL = timedelta(minutes=5)


class Finding(Struct, frozen=True):
    """One check: what was looked at, how it is, and what to do about it."""

    check: str
    verdict: Verdict
    told: str
    hint: str = ""


class Seen(Struct, frozen=True):
    """One file or folder as the file system has it."""

    path: str
    mode: int
    group: str


def about_access(folders: Sequence[Seen], files: Sequence[Seen]) -> Finding:
    """Tell whether somebody who is only in the mirror's group can read it.

    `folders` lead to the mirror, outermost first; `files` are the database and what lies beside it.
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


def about_delivery(status: int, outcome: str | None, server: str) -> Finding:
    """Tell what became of a signed test delivery sent to the public URL.

    `outcome`: what the answer says in our words, None when it does not. `server`: who says it
    answered.
    """
    check = "a signed delivery reaches the daemon from outside"
    by = f" (answered by {server})" if server else ""
    if status == 200 and outcome is not None:  # noqa: PLR2004 - HTTP
        return Finding(check, "pass", f"answered 200 {outcome}")
    if status == 200:  # noqa: PLR2004
        return Finding(
            check,
            "fail",
            f"200, but not by syncd{by}",
            "something in front answers by itself: pass webhook.path on to webhook.listen",
        )
    hints = {
        401: "the signature did not fit: something in front rewrites the body or strips the header "
        "X-Dreamship-Signature, or another daemon with another key answers",
        404: "the path does not lead here: compare webhook.public_url with webhook.path",
        405: "something in front forbids POST",
        413: "something in front limits bodies: allow at least webhook.max_body_bytes",
        502: "something in front cannot reach webhook.listen: is the daemon up, is it the address?",
        503: "the daemon cannot keep deliveries: see `syncd status`",
        504: "something in front waits in vain for webhook.listen",
    }
    if 300 <= status < 400:  # noqa: PLR2004
        hint = "a redirect: Dreamship posts to the URL as it is; write the final one"
    else:
        hint = hints.get(status, "see the log of whatever stands in front")
    return Finding(check, "fail", f"answered {status}{by}", hint)
