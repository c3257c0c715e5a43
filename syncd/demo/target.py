"""The target of `syncd demo --publish`: its configuration, and its differences at the end."""

from __future__ import annotations

import secrets
from contextlib import closing

from msgspec import json

from syncd.config import TargetUrl
from syncd.core.status_document import PublishStatus
from syncd.errors import SyncdError

# A separate schema, so that no table of a real shop changes.
SCHEMA = "syncd_demo"


class DemoTarget:
    """A new source in the schema of demos: no earlier demo has its lease."""

    def __init__(self, url: TargetUrl) -> None:
        self._url = url
        self.source = f"demo-{secrets.token_hex(4)}"

    @property
    def section(self) -> str:
        """The section of the configuration."""
        values = {"url": self._url.reveal(), "schema": SCHEMA, "source": self.source}
        lines = (f"{key} = {json.encode(value).decode()}" for key, value in values.items())
        return "\n".join(["", "[publish]", *lines, ""])

    def differences(self, values: dict[int, str]) -> int:
        """Compare the target with the values of Dreamship; raises leaves of TargetError."""
        # It imports SQLAlchemy, which a demo without a target does not need.
        import sqlalchemy as sa  # noqa: PLC0415

        from syncd.publish.target import Target  # noqa: PLC0415

        with closing(Target(self._url, SCHEMA)) as target:
            table = target.tables.variants
            query = sa.select(table.c.variant_id, table.c.availability).where(
                table.c.source == self.source, table.c.availability.is_not(None)
            )
            with target.transaction() as db:
                found = {row.variant_id: row.availability for row in db.execute(query)}
        return sum(
            found.get(variant) != values.get(variant) for variant in found.keys() | values.keys()
        )


def require(publish: PublishStatus | None) -> None:
    """Raise SyncdError if the target cannot be used: at the beginning, with the cause."""
    if publish is not None and publish.error:
        raise SyncdError(
            f"the target of --publish cannot be used: {publish.error}",
            hint=f"correct the URL or the rights of its user: the demo creates the schema {SCHEMA} "
            "and its tables (syncd/docs/publish.md)",
        )


def has_everything(publish: PublishStatus | None) -> bool:
    """Whether the target has the content of the mirror."""
    return (
        publish is not None
        and publish.state == "active"
        and not publish.copying
        and not publish.lag_seconds
    )


def line(publish: PublishStatus) -> str:
    """Return the state of the target in a few words."""
    if publish.error:
        return f"{publish.state}: {publish.error}"
    if publish.copying:
        return "is filled for the first time"
    return f"{publish.lag_seconds:.1f} s behind the mirror, {publish.seq or 0} changes"
