"""The check of pushes by `syncd doctor`: each URL takes a signed test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from syncd import running
from syncd.cli.doctor_checks import Finding
from syncd.cli.mirror_id import mirror_id
from syncd.config import Config, Push
from syncd.core.pushes import test_body
from syncd.push.sinks import NotTaken, UrlSink


def findings(config: Config) -> Iterator[Finding]:
    """Send a test to each URL: a message without changes, which says that it is a test."""
    urls = [push for push in config.push if push.url]
    if not urls:
        return
    body = test_body(mirror_id(config))
    for push in urls:
        yield running.run(_check(config, push, body))


async def _check(config: Config, push: Push, body: bytes) -> Finding:
    check = f"the receiver of the push {push.name} takes a signed test"
    sink = UrlSink(push.url, config.signing_secrets[push.name], lambda: datetime.now(UTC))
    try:
        await sink.post(f"msg_test_{uuid.uuid4().hex}", body)
    except NotTaken as error:
        hint = (
            "check the address and the secret on both sides; a receiver answers 2xx to a message "
            'with "test": true and no changes (syncd/docs/push.md)'
        )
        return Finding(check, "fail", f"it {error}", hint)
    finally:
        await sink.close()
    return Finding(check, "pass", "it answered 2xx")
