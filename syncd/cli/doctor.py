"""`syncd doctor`."""

from __future__ import annotations

import grp
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import httpx
from msgspec import DecodeError, json
from msgspec.structs import asdict

from syncd import http_client, running
from syncd.cli import doctor_checks
from syncd.cli.common import config_option, json_option, load_for_daemon
from syncd.cli.doctor_checks import Answer, FileInfo, Finding, Verdict
from syncd.config import Config, find
from syncd.control import client
from syncd.core.payload import TEST_ACTION
from syncd.core.read_age import COPY_AGE
from syncd.core.signature import HEADER, sign
from syncd.dreamship.client import DreamshipClient
from syncd.errors import ConfigurationError, MirrorError, SourceError, SyncdError
from syncd.http_server.limits import (
    MAX_CONNECTIONS,
    connections_for,
    open_files_for,
    raise_open_files,
)
from syncd.printing import MAX_LINE_CHARS, Colored, show, show_json
from syncd.store import Queries
from syncd.store.files import missing_sidecars, require_file, require_own_log, resolve, sidecars
from syncd.store.places import oddities

_COLORS = {"pass": "green", "warn": "yellow", "fail": "red"}
# What Dreamship gives an answer.
ANSWER_S = 30.0


@click.command(
    "doctor",
    short_help="Check one by one what has to be right.",
    epilog="Example:\n\n  syncd doctor -c /etc/syncd/config.toml",
)
@config_option
@json_option
def command(config_path: str | None, *, as_json: bool) -> int:
    """Check one by one what has to be right, each with what to do.

    Asks Dreamship once, and sends two signed test deliveries to webhook.public_url, a small one
    and one of webhook.max_body_bytes; they are answered "ignored" and change nothing. Exit code 1
    when a check failed.
    """
    findings = []
    for finding in _examine(config_path):
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        show_json({"checks": [asdict(finding) for finding in findings]})
    return 1 if any(finding.verdict == "fail" for finding in findings) else 0


def _show(finding: Finding) -> None:
    verdict = Colored(f"{finding.verdict:4}", _COLORS[finding.verdict])
    # It names a reason for each thing that is wrong, and each may be long.
    show(verdict, f"  {finding.check}: {finding.told}", most=MAX_LINE_CHARS)
    if finding.hint:
        show(f"      Try: {finding.hint}", most=MAX_LINE_CHARS)


def _examine(config_path: str | None) -> Iterator[Finding]:
    try:
        config = load_for_daemon(config_path)
    except ConfigurationError as error:
        for one in error.errors:
            yield Finding("the configuration is right", "fail", one, error.hint)
        return
    yield Finding(
        "the configuration is right", "pass", f"api keys: {len(config.keys)}, {config.keys_from}"
    )
    # Keys may come from elsewhere, and the file be none of ours.
    yield doctor_checks.about_keys(
        [_look(file) for file in _key_files(config_path, config) if os.access(file, os.F_OK)]
    )
    # Seen first: whoever may write the folder makes what is missing as soon as the mirror is read.
    access = _about_access(config.mirror.path)
    yield _about_writing(config.mirror.path)
    yield access
    yield from running.run(_about_dreamship(config))
    yield from _about_the_daemon(config)
    yield _about_delivery(config)


def _key_files(config_path: str | None, config: Config) -> Iterator[Path]:
    if config.dreamship.api_keys or config.notify.url:
        yield find(config_path, os.environ)
    if config.dreamship.api_key_file is not None:
        yield config.dreamship.api_key_file


def _about_writing(mirror: Path) -> Finding:
    check = "the mirror can be written by this user"
    try:
        real = resolve(mirror)
        require_file(real)
    except MirrorError as fault:
        return Finding(check, "fail", fault.message, fault.hint)
    folder = real.parent
    if not folder.is_dir():
        return Finding(check, "fail", f"there is no folder {folder}", "make it, or mirror.path's")
    for path in (folder, *(one for one in (real, *sidecars(real)) if one.exists())):
        if not os.access(path, os.W_OK):
            hint = "run this as the daemon's user; the folder and its files must be its own"
            return Finding(check, "fail", f"{path} cannot be written", hint)
    if not real.exists():
        return Finding(check, "warn", "there is none yet", "start the daemon")
    try:
        with real.open("rb") as file:
            require_own_log(real, file.read(100), os.fstat(file.fileno()).st_size)
        Queries(mirror).close()
    except MirrorError as fault:
        return Finding(check, "fail", fault.message, fault.hint)
    return Finding(check, "pass", str(mirror))


def _about_access(mirror: Path) -> Finding:
    try:
        real = resolve(mirror)
        require_file(real)
        # A shop that follows a link must be let through on both ways.
        folders = dict.fromkeys(
            folder for path in (mirror.absolute(), real) for folder in [*reversed(path.parents)][1:]
        )
        finding = doctor_checks.about_access(
            [_look(folder) for folder in folders if folder.exists()],
            [_look(file) for file in (real, *sidecars(real)) if file.exists()],
            missing_sidecars(real),
        )
        odd = oddities(mirror) if real.exists() else []
    except MirrorError as fault:
        return Finding("the shop can read the mirror", "fail", fault.message, fault.hint)
    if not odd:
        return finding
    is_well = finding.verdict == "pass"
    return Finding(
        finding.check,
        "warn" if is_well else finding.verdict,
        "; ".join([*([] if is_well else [finding.told]), *(one.told for one in odd)]),
        "; ".join([*([] if is_well else [finding.hint]), *(one.hint for one in odd)]),
    )


def _look(path: Path) -> FileInfo:
    found = path.stat()
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return FileInfo(str(path), found.st_mode, group)


async def _about_dreamship(config: Config) -> list[Finding]:
    check = "Dreamship accepts the api key"
    source = DreamshipClient(
        config.dreamship.base_url,
        config.keys[0].reveal(),
        timeout_s=config.dreamship.timeout_seconds,
        now=lambda: datetime.now(UTC),
    )
    try:
        page = await source.page(None, 1)
    except SourceError as fault:
        return [Finding(check, "fail", fault.message, fault.hint)]
    finally:
        await source.aclose()
    count = "" if page.count is None else f" of {page.count} items"
    findings = [Finding(check, "pass", f"it listed the first page{count}")]
    if page.age >= COPY_AGE:
        findings.append(doctor_checks.about_cache(page.age))
    elif page.source_at is not None:
        # `Date` is cut to whole seconds, and was stamped while the answer was on its way.
        findings.append(doctor_checks.about_clock(page.began_at - page.source_at))
    return findings


def _about_the_daemon(config: Config) -> Iterator[Finding]:
    check = "the daemon is up and well"
    try:
        status = client.ask_status(config.control.socket)
    except SyncdError as fault:
        yield Finding(check, "fail", fault.message, fault.hint)
        yield _about_connections(connections_for(raise_open_files()), is_running=False)
        return
    health = status.health
    if health == "ok":
        yield Finding(check, "pass", f"version {status.version}")
    else:
        reasons = " ".join(status.reasons)
        verdict: Verdict = "fail" if health == "failing" else "warn"
        yield Finding(check, verdict, f"{health}: {reasons}", "each reason says what to do")
    yield _about_connections(status.max_connections, is_running=True)


def _about_connections(limit: int | None, *, is_running: bool) -> Finding:
    most = MAX_CONNECTIONS
    return doctor_checks.about_connections(limit, most, open_files_for(most), is_running=is_running)


def _about_delivery(config: Config) -> Finding:
    """Send a small one, then one as large as the daemon takes: what is in front has limits too."""
    url, key = config.webhook.public_url, config.keys[0].reveal()
    if not url:
        hint = "set webhook.public_url to the URL you gave Dreamship"
        return Finding(doctor_checks.REACHES, "warn", "not tried", hint)
    finding = deliver(url, key)
    if finding.verdict == "pass":
        finding = deliver(url, key, size=config.webhook.max_body_bytes)
    return finding


def deliver(url: str, key: str, *, size: int = 0, limit_s: float = ANSWER_S) -> Finding:
    """Tell what becomes of a signed delivery of at least so many bytes."""
    # What a proxy that parses JSON and writes it anew would not leave as it is.
    body = (
        f'{{ "object" : "{TEST_ACTION}", "event": {{"uuid": "{uuid.uuid4()}",\n'
        f'  "action": "{TEST_ACTION}"}}, '
        '"data": {"n": 1.0, "t": "\\u00e9 \u00e9", "n": 1e0} }'
    ).encode()
    body += b" " * (size - len(body))
    headers = {HEADER: sign(body, [key]), "Content-Type": "application/json"}
    try:
        answer, content = running.run(_post(url, body, headers, limit_s))
    except httpx.ReadTimeout:
        hint = "what stands in front waits in vain for webhook.listen, or the daemon hangs"
        return Finding(doctor_checks.REACHES, "fail", f"no answer within {limit_s:g} s", hint)
    except ConfigurationError as fault:
        return Finding(doctor_checks.REACHES, "fail", fault.message, fault.hint)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as fault:
        told = f"{len(body):,} bytes could not be sent: {str(fault) or type(fault).__name__}"
        hint = (
            "check the name, the certificate and the firewall; some hosts cannot reach themselves"
        )
        return Finding(doctor_checks.REACHES, "fail", told, hint)
    return doctor_checks.about_delivery(
        Answer(
            answer.status_code,
            len(body),
            **_words(content),
            server=answer.headers.get("server", "")[:100],
            location=answer.headers.get("location", "")[:200],
        )
    )


async def _post(
    url: str, body: bytes, headers: dict[str, str], limit_s: float
) -> tuple[httpx.Response, bytes]:
    """Return an answer and the first piece of its body.

    Not by a blocking call: while that looks up a name for minutes, nobody can interrupt it.
    """
    async with (
        http_client.async_client(url, timeout=limit_s) as client,
        client.stream("POST", url, content=body, headers=headers) as answer,
    ):
        # Ours come in one piece; what stands in front may have much to say, or take its time.
        return answer, await anext(answer.aiter_raw(), b"")


def _words(content: bytes) -> dict[str, str]:
    """Return what syncd says in an answer; nothing, if it is not syncd's."""
    try:
        told = json.decode(content, type=dict[str, str])
    except DecodeError:
        return {}
    return {name: told[name] for name in ("outcome", "error") if name in told}
