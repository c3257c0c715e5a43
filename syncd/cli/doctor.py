"""`syncd doctor`."""

from __future__ import annotations

import grp
import os
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import httpx
from msgspec import DecodeError, json, to_builtins

from syncd import http_client, running
from syncd.cli import doctor_checks, doctor_content, doctor_publish, doctor_push
from syncd.cli.common import config_option, json_option, load_for_daemon
from syncd.cli.doctor_checks import DELIVERY_CHECK, Answer, FileInfo, Finding, Verdict
from syncd.cli.program import with_program
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
from syncd.store.places import place_warnings
from syncd.store.translation import translated

_COLORS = {"pass": "green", "warn": "yellow", "fail": "red"}
# Dreamship waits this long for an answer.
ANSWER_TIMEOUT_S = 30.0


@click.command(
    "doctor",
    short_help="Run checks, with a hint for each failure.",
    epilog="Example:\n\n  syncd doctor -c /etc/syncd/config.toml",
)
@config_option
@json_option
def command(config_path: str | None, *, as_json: bool) -> int:
    """Run checks, with a hint for each failure.

    Makes one call to Dreamship, and sends two signed test deliveries to webhook.public_url: a small
    one and one of webhook.max_body_bytes. They are answered "ignored" and change nothing. Sends a
    signed test without changes to the URL of each push, and reads the target of [publish]. Ends
    with exit code 1 if a check failed.
    """
    findings = []
    for finding in _run_checks(config_path):
        findings.append(finding)
        if not as_json:
            print_finding(finding)
    if as_json:
        show_json({"checks": [to_builtins(finding) for finding in findings]})
    return 1 if any(finding.verdict == "fail" for finding in findings) else 0


def print_finding(finding: Finding, *, err: bool = False) -> None:
    """Print the result of a check, and its remedy."""
    verdict = Colored(f"{finding.verdict:4}", _COLORS[finding.verdict])
    # The finding may name many reasons, and each may be long.
    detail = with_program(f"  {finding.check}: {finding.detail}")
    show(verdict, detail, err=err, most=MAX_LINE_CHARS)
    if finding.hint:
        show(f"      Try: {with_program(finding.hint)}", err=err, most=MAX_LINE_CHARS)


def _run_checks(config_path: str | None) -> Iterator[Finding]:
    try:
        config = load_for_daemon(config_path)
    except ConfigurationError as error:
        for message in error.errors:
            yield Finding("the configuration is right", "fail", message, error.hint)
        return
    yield Finding(
        "the configuration is right", "pass", f"api keys: {len(config.keys)}, {config.keys_from}"
    )
    # The keys may come from another source, so the file need not exist.
    files = [file for file in _key_files(config_path, config) if os.access(file, os.F_OK)]
    yield doctor_checks.check_keys([_file_info(file) for file in files])
    # First: if this user can write the folder, the next check creates missing files.
    mirror = config.mirror.path
    access = _examine("the shop can read the mirror", mirror, _check_access)
    yield _examine("the mirror can be written by this user", mirror, _check_writing)
    yield access
    yield from doctor_content.findings(config)
    yield from running.run(_check_dreamship(config))
    yield from _check_daemon(config)
    yield _check_delivery(config)
    yield from doctor_push.findings(config)
    yield from doctor_publish.findings(config)


def _key_files(config_path: str | None, config: Config) -> Iterator[Path]:
    has_secrets = any(push.url and push.secret_file is None for push in config.push)
    if config.dreamship.api_keys or config.notify.url or config.publish.url or has_secrets:
        yield find(config_path, os.environ)
    if config.dreamship.api_key_file is not None:
        yield config.dreamship.api_key_file
    if config.publish.url_file is not None:
        yield config.publish.url_file
    yield from (push.secret_file for push in config.push if push.secret_file is not None)


def _examine(check: str, mirror: Path, examine: Callable[[str, Path], Finding]) -> Finding:
    """Examine the mirror; an error becomes the finding, so that the other checks still run."""
    try:
        with translated(mirror):
            return examine(check, mirror)
    except MirrorError as error:
        return Finding(check, "fail", error.message, error.hint)


def _check_writing(check: str, mirror: Path) -> Finding:
    real = resolve(mirror)
    require_file(real)
    folder = real.parent
    if not folder.is_dir():
        return Finding(
            check, "fail", f"there is no folder {folder}", "create it, or change mirror.path"
        )
    for path in (folder, *(file for file in (real, *sidecars(real)) if file.exists())):
        if not os.access(path, os.W_OK):
            hint = "run this as the daemon's user, who must own the folder and its files"
            return Finding(check, "fail", f"{path} cannot be written", hint)
    if not real.exists():
        return Finding(check, "warn", "there is no mirror yet", "start the daemon")
    with real.open("rb") as file:
        require_own_log(real, file.read(100), os.fstat(file.fileno()).st_size)
    Queries(mirror).close()
    return Finding(check, "pass", str(mirror))


def _check_access(_: str, mirror: Path) -> Finding:
    real = resolve(mirror)
    require_file(real)
    # A shop that follows a link needs access to the folders of the link and of its target.
    folders = dict.fromkeys(
        folder for path in (mirror.absolute(), real) for folder in [*reversed(path.parents)][1:]
    )
    finding = doctor_checks.check_access(
        [_file_info(folder) for folder in folders if folder.exists()],
        [_file_info(file) for file in (real, *sidecars(real)) if file.exists()],
        missing_sidecars(real),
    )
    unusual = place_warnings(mirror) if real.exists() else []
    if not unusual:
        return finding
    passed = finding.verdict == "pass"
    return Finding(
        finding.check,
        "warn" if passed else finding.verdict,
        "; ".join([*([] if passed else [finding.detail]), *(place.message for place in unusual)]),
        "; ".join([*([] if passed else [finding.hint]), *(place.hint for place in unusual)]),
    )


def _file_info(path: Path) -> FileInfo:
    status = path.stat()
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return FileInfo(str(path), status.st_mode, group)


async def _check_dreamship(config: Config) -> list[Finding]:
    check = "Dreamship accepts the api key"
    source = DreamshipClient(
        config.dreamship.base_url,
        config.keys[0].reveal(),
        timeout_s=config.dreamship.timeout_seconds,
        now=lambda: datetime.now(UTC),
    )
    try:
        page = await source.page(None, 1)
    except SourceError as error:
        return [Finding(check, "fail", error.message, error.hint)]
    finally:
        await source.aclose()
    count = "" if page.count is None else f" of {page.count} items"
    findings = [Finding(check, "pass", f"Dreamship answered the first page{count}")]
    if page.age >= COPY_AGE:
        findings.append(doctor_checks.warn_of_cache(page.age))
    elif page.source_at is not None:
        # `Date` has whole seconds and is a little older than the answer.
        findings.append(doctor_checks.check_clock(page.began_at - page.source_at))
    return findings


def _check_daemon(config: Config) -> Iterator[Finding]:
    check = "the daemon is up and well"
    try:
        status = client.request_status(config.control.socket)
    except SyncdError as error:
        yield Finding(check, "fail", error.message, error.hint)
        yield _check_connections(connections_for(raise_open_files()), is_running=False)
        return
    health = status.health
    if health == "ok":
        yield Finding(check, "pass", f"version {status.version}")
    else:
        reasons = " ".join(status.reasons)
        verdict: Verdict = "fail" if health == "failing" else "warn"
        yield Finding(check, verdict, f"{health}: {reasons}", "each reason includes the remedy")
    yield _check_connections(status.max_connections, is_running=True)


def _check_connections(limit: int | None, *, is_running: bool) -> Finding:
    return doctor_checks.check_connections(
        limit, MAX_CONNECTIONS, open_files_for(MAX_CONNECTIONS), is_running=is_running
    )


def _check_delivery(config: Config) -> Finding:
    """Send a small delivery, then the largest allowed one: a proxy in front has its own limit."""
    url, key = config.webhook.public_url, config.keys[0].reveal()
    if not url:
        hint = "set webhook.public_url to the webhook URL in the Dreamship app"
        return Finding(DELIVERY_CHECK, "warn", "not tried", hint)
    finding = send_test_delivery(url, key)
    if finding.verdict == "pass":
        finding = send_test_delivery(url, key, size=config.webhook.max_body_bytes)
    return finding


def send_test_delivery(
    url: str, key: str, *, size: int = 0, timeout_s: float = ANSWER_TIMEOUT_S
) -> Finding:
    """Send a signed delivery of at least `size` bytes, and check the answer."""
    # A proxy that parses and rewrites JSON changes these bytes.
    body = (
        f'{{ "object" : "{TEST_ACTION}", "event": {{"uuid": "{uuid.uuid4()}",\n'
        f'  "action": "{TEST_ACTION}"}}, '
        '"data": {"n": 1.0, "t": "\\u00e9 \u00e9", "n": 1e0} }'
    ).encode()
    body += b" " * (size - len(body))
    headers = {HEADER: sign(body, [key]), "Content-Type": "application/json"}
    try:
        answer, content = running.run(_post(url, body, headers, timeout_s))
    except httpx.ReadTimeout:
        hint = "the web server in front cannot reach webhook.listen, or the daemon hangs"
        return Finding(DELIVERY_CHECK, "fail", f"no answer within {timeout_s:g} s", hint)
    except ConfigurationError as error:
        return Finding(DELIVERY_CHECK, "fail", error.message, error.hint)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        detail = f"{len(body):,} bytes could not be sent: {str(error) or type(error).__name__}"
        hint = (
            "check the name, the certificate and the firewall; some hosts cannot reach themselves"
        )
        return Finding(DELIVERY_CHECK, "fail", detail, hint)
    return doctor_checks.check_delivery(
        Answer(
            answer.status_code,
            len(body),
            **_syncd_reply(content),
            server=answer.headers.get("server", "")[:100],
            location=answer.headers.get("location", "")[:200],
        )
    )


async def _post(
    url: str, body: bytes, headers: dict[str, str], timeout_s: float
) -> tuple[httpx.Response, bytes]:
    """Return an answer and the first piece of its body.

    A blocking call could not be interrupted while it looks up a name, which may take minutes.
    """
    async with (
        http_client.async_client(url, timeout=timeout_s) as client,
        client.stream("POST", url, content=body, headers=headers) as answer,
    ):
        # The answer of syncd comes in one piece. Another server's may be long or slow.
        return answer, await anext(answer.aiter_raw(), b"")


def _syncd_reply(content: bytes) -> dict[str, str]:
    """Return `outcome` and `error` of an answer of syncd; nothing for another server's answer."""
    try:
        reply = json.decode(content, type=dict[str, str])
    except DecodeError:
        return {}
    return {name: reply[name] for name in ("outcome", "error") if name in reply}
