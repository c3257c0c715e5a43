"""Checks that every body must pass, with any bytes, on the path of a delivery."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from syncd.core.model import OUTCOMES, Delivery, Mention
from syncd.core.payload import parse
from syncd.core.policy import Policy
from syncd.core.records import DeliveryResult
from syncd.core.signature import has_signature_form, is_authentic, sign
from syncd.store import deliveries
from syncd.store.migrations import migrate

KEYS = ("ds_test_0123456789abcdef", "schlüssel")
NOW = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
_POLICIES = (
    Policy(frozenset({"in_stock"}), timedelta(minutes=1)),
    Policy(frozenset({"in_stock"}), timedelta(minutes=1), items=frozenset({71, 72})),
    Policy(frozenset({"in_stock"}), timedelta(minutes=1), has_categories=True),
)


class Mirror:
    """A mirror in memory that forgets everything after each body."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self._db)

    def close(self) -> None:
        """Close the mirror."""
        self._db.close()

    def check(self, header: bytes, *bodies: bytes) -> list[DeliveryResult]:
        """Deliver the bodies one after the other, each twice; return the outcomes."""
        for body in bodies:
            has_signature_form(header)
            assert not is_authentic(body, header, KEYS)
            assert is_authentic(body, sign(body, KEYS).encode() + b"," + header, KEYS)
        all_judged = []
        for policy in _POLICIES:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for body in bodies:
                    all_judged += self._deliver_twice(parse(body, NOW), policy)
                self._check_kept()
            finally:
                self._db.execute("ROLLBACK")
        return all_judged

    def _deliver_twice(self, delivery: Delivery, policy: Policy) -> list[DeliveryResult]:
        assert delivery.update is None or delivery.quarantined is None
        first, second = (self._record(delivery, policy) for _ in range(2))
        assert first.outcome in OUTCOMES
        if delivery.quarantined is not None and delivery.mention is not None:
            self._check_doubted(delivery.mention)
        # Equal bytes without a uuid may be a new event, but only if they contradict the mirror.
        assert second.outcome == "duplicate" or delivery.update is not None
        return [first, second]

    def _record(self, delivery: Delivery, policy: Policy) -> DeliveryResult:
        (result,) = deliveries.apply(
            self._db,
            [delivery],
            policy,
            now=NOW,
            source_now=NOW,
            missed_grace=timedelta(minutes=10),
        )
        return result

    def _check_doubted(self, mention: Mention) -> None:
        """Check that a variant is not sold if a body names it and was not understood."""
        for variant_id in mention.variant_ids:
            found = self._db.execute(
                "SELECT sellable FROM availability WHERE variant_id = ?", (variant_id,)
            ).fetchone()
            assert found is None or found[0] == 0

    def _check_kept(self) -> None:
        """Check that a shop can read the mirror, and that the feed contains every change."""
        view = {
            row[0]: row[1:]
            for row in self._db.execute(
                "SELECT variant_id, availability, sellable FROM availability"
            )
        }
        feed = {
            row[0]: row[1:]
            for row in self._db.execute(
                "SELECT variant_id, availability, sellable FROM changes ORDER BY seq"
            )
        }
        assert feed == view
