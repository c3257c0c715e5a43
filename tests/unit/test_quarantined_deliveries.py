"""A delivery that was not understood still makes the variants that it names be verified."""

from __future__ import annotations

import asyncio
import json as json_of_python  # as most senders write it
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from payloads import PAYLOADS, body_at

from syncd.clock import SteadyClock
from syncd.config import Config
from syncd.config.runtime import ActiveConfig
from syncd.core import lenient_json
from syncd.core.explain import decisions, sentences
from syncd.core.lenient_json import Conflict, NotJsonError
from syncd.core.model import Delivery, ItemRead, SourceVariant, VariantDetails
from syncd.core.named_ids import mention_in
from syncd.core.payload import parse
from syncd.core.policy import Policy
from syncd.core.records import DeliveryResult
from syncd.dreamship.remote_clock import RemoteClock
from syncd.store import Database, reads, replay
from syncd.store.deliveries import apply as apply_to_mirror
from syncd.store.history import variant_history
from syncd.store.migrations import migrate
from syncd.webhook.batch_writer import BatchWriter

NOW = datetime(2026, 3, 1, 12, 10, tzinfo=UTC)
SETTLE = timedelta(minutes=1)
GRACE = timedelta(minutes=10)
T = TypeVar("T")
POLICY = Policy(frozenset({"in_stock", "low_stock"}), SETTLE)
ITEM, VARIANT, SIBLING = 77, 3_346_951, 3_346_952
GENUINE = body_at(next(path for path in PAYLOADS if path.stem == "item-by-id"))


class Mirror:
    """A mirror in memory of one item, of which both variants are on sale."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.db)
        self.policy = policy
        self.read(NOW - timedelta(hours=1), in_stock(VARIANT), in_stock(SIBLING))

    def read(
        self,
        began_at: datetime,
        *variants: SourceVariant,
        is_whole: bool = True,
        item_id: int = ITEM,
    ) -> None:
        """Take the answer of a read."""
        found = ItemRead(item_id, "Tee", variants, began_at, began_at, is_whole=is_whole)
        reads.apply(self.db, found, self.policy, now=began_at)

    def take(self, *bodies: bytes, at: datetime = NOW) -> list[DeliveryResult]:
        """Take deliveries in one batch."""
        return self.apply([parse(body, at) for body in bodies], at)

    def apply(self, batch: Sequence[Delivery], at: datetime = NOW) -> list[DeliveryResult]:
        """Take parsed deliveries in one batch."""
        return apply_to_mirror(
            self.db, batch, self.policy, now=at, source_now=at, missed_grace=GRACE
        )

    def row(self, variant_id: int = VARIANT) -> dict[str, Any]:
        """Return a variant in the view of a shop; empty if the mirror lacks it."""
        cursor = self.db.execute("SELECT * FROM availability WHERE variant_id = ?", (variant_id,))
        names = [column[0] for column in cursor.description]
        row = cursor.fetchone()
        return {} if row is None else dict(zip(names, row, strict=True))

    def state(self, variant_id: int = VARIANT) -> tuple[Any, ...]:
        """Return value, sellable and verifying."""
        row = self.row(variant_id)
        return tuple(row.get(name) for name in ("availability", "sellable", "verifying"))

    def queue(self) -> dict[int, tuple[str | None, str]]:
        """Return when the urgent and the settled read of each item are due."""
        rows = self.db.execute("SELECT item_id, urgent_at, settle_at FROM refresh_queue")
        return {row[0]: row[1:] for row in rows}

    def unplaced_variants(self) -> list[int]:
        """Return the variants without an item."""
        return [row[0] for row in self.db.execute("SELECT variant_id FROM unplaced_variants")]


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    """Give a mirror that has one item with two variants in stock."""
    one = Mirror()
    yield one
    one.db.close()


def in_stock(variant_id: int, value: str = "in_stock") -> SourceVariant:
    return SourceVariant(variant_id, value, VariantDetails("Red / XL"))


VERIFYING = ("in_stock", 0, 1)
UNTOUCHED = ("in_stock", 1, 0)

CUT = GENUINE[: GENUINE.index(b'"availability":"out')]
ABOUT_NOTHING = json.encode({"id": VARIANT, "data": {"id": VARIANT}})


# The deciding parts are understood; other parts may have any form.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"\\ud83d"', "\ufffd"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"NaN", "NaN"),
        (b"-Infinity", "-Infinity"),
        (b"1e400", "1e400"),
        (b"9" * 5000, "9" * 5000),
        (b'"a\nb\tc"', "a\nb\tc"),
        (b'"\xe9"', "\ufffd"),
        (b'{"a": 1, "a": 1.0}', {"a": 1}),
        (b'{"a": 1, "a": 2}', {"a": Conflict((1, 2))}),
        (b'["\\ud800", {"\\udfff": "\\udc00"}]', ["\ufffd", {"\ufffd": "\ufffd"}]),
    ],
)
def test_the_lenient_decoder_accepts(text: bytes, value: object) -> None:
    """Each of these in a document that is otherwise well formed."""
    assert lenient_json.decode(b'{"id": 5, "x": %s}' % text) == {"id": 5, "x": value}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"a": "in_stock"}}', id="an end too many"),
        pytest.param(b'{"a": 1}{"a": 2}', id="two documents"),
        pytest.param(b'{"a": 1', id="cut short"),
        pytest.param(b"{'a': 1}", id="of Python"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="nested"),
        pytest.param(b'"' + b"\\" * 5, id="half an escape"),
        pytest.param(b"\x1f\x8b nothing", id="no gzip"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_the_lenient_decoder_refuses(text: bytes) -> None:
    """Text whose meaning may differ from its first part is no document."""
    with pytest.raises(NotJsonError):
        lenient_json.decode(text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(json_values)
def test_both_decoders_agree_on_well_formed_documents(value: object) -> None:
    """So it does not matter which one decodes a body."""
    for text in (json.encode(value), json_of_python.dumps(value).encode()):
        strict = json.decode(text)
        assert lenient_json.decode(text) == strict
        if not isinstance(strict, str | list):  # one in a list, and text in text, are unwrapped
            assert lenient_json.recover(text) == strict


@given(json_values, st.text(), json_values, json_values)
def test_a_repeated_key_is_detected(
    value: object, name: str, first: object, second: object
) -> None:
    """At any depth, and with any number of colons in the texts."""
    key = json.encode(name)
    inner = b"{%s:%s,%s:%s}" % (key, json.encode(first), key, json.encode(second))
    text = b'{"a:":%s,"b":[%s]}' % (json.encode(value), inner)
    assert not lenient_json.names_are_unique(text, json.decode(text))


def test_two_different_values_are_verified(mirror: Mirror) -> None:
    """In either order; the same value twice is one value."""
    pair = b'"availability":"out_of_stock"'
    (one,) = mirror.take(GENUINE.replace(pair, b'"availability":"low_stock",' + pair))
    assert (one.outcome, mirror.state()) == ("verifying", VERIFYING)
    fresh = Mirror()
    (one,) = fresh.take(GENUINE.replace(pair, pair + b"," + pair))
    assert (one.outcome, fresh.state()) == ("applied", ("out_of_stock", 0, 0))
    fresh.db.close()


# Bodies that no decoder understands.


@pytest.mark.parametrize(
    "body",
    [path for path in PAYLOADS if "mention" in json.decode(path.read_bytes())["expected"]],
    ids=lambda path: path.stem,
)
def test_a_quarantined_payload_makes_its_variants_unsellable(mirror: Mirror, body: Any) -> None:
    """As its file says; an event of an order or an item does not."""
    expected = json.decode(body.read_bytes())["expected"]
    (one,) = mirror.take(body_at(body))
    assert one.outcome == ("quarantined" if "quarantined" in expected else "ignored")
    named = expected["mention"] or {"variant_ids": [], "unclear_item_ids": [], "item_ids": []}
    is_distrusted = VARIANT in named["variant_ids"] or ITEM in named["unclear_item_ids"]
    assert mirror.state() == (VERIFYING if is_distrusted else UNTOUCHED)
    assert mirror.state(SIBLING) == (VERIFYING if named["unclear_item_ids"] else UNTOUCHED)
    assert (ITEM in mirror.queue()) == (is_distrusted or ITEM in named["item_ids"])


def test_a_quarantined_delivery_is_verified_by_a_settled_read(mirror: Mirror) -> None:
    """Soon, as after a delivery without a value; the item is read once."""
    for _ in range(1000):
        mirror.take(CUT)
    assert mirror.state() == VERIFYING
    ((item_id, (urgent_at, settle_at)),) = mirror.queue().items()
    assert (item_id, urgent_at, settle_at) == (
        ITEM,
        "2026-03-01T12:10:20.000000Z",
        "2026-03-01T12:11:00.000000Z",
    )
    assert mirror.row()["changed_at"] < "2026-03-01T12:10"
    at = NOW + SETTLE
    mirror.read(at, in_stock(VARIANT, "out_of_stock"), in_stock(SIBLING))
    assert mirror.state() == ("out_of_stock", 0, 0)
    assert mirror.queue() == {}
    feed = mirror.db.execute("SELECT missed FROM changes WHERE variant_id = ?", (VARIANT,))
    assert {row[0] for row in feed} == {0}


def test_equal_bytes_are_verified_again_later(mirror: Mirror) -> None:
    """They may be a retry or another event."""
    assert mirror.take(CUT)[0].outcome == "quarantined"
    mirror.read(NOW + SETTLE, in_stock(VARIANT), in_stock(SIBLING))
    assert mirror.state() == UNTOUCHED
    assert mirror.take(CUT, at=NOW + 2 * SETTLE)[0].outcome == "duplicate"
    assert mirror.state() == VERIFYING


def test_all_contradicting_ids_are_verified(mirror: Mirror) -> None:
    """Any of them may be the right one."""
    body = GENUINE.replace(b'"object_id":%d' % VARIANT, b'"object_id":%d' % SIBLING)
    assert mirror.take(body)[0].outcome == "quarantined"
    assert (mirror.state(), mirror.state(SIBLING)) == (VERIFYING, VERIFYING)


def test_an_unknown_variant_is_searched(mirror: Mirror) -> None:
    """First in the named item, then by a sweep; it gets a row only when it is found."""
    mirror.take(GENUINE.replace(b"%d" % VARIANT, b"999")[:-1])
    assert (mirror.row(999), mirror.unplaced_variants()) == ({}, [999])
    assert mirror.queue()[ITEM][0] == "2026-03-01T12:10:00.000000Z"
    assert mirror.state() == UNTOUCHED
    # A read so soon may lag behind the delivery.
    mirror.read(NOW + timedelta(seconds=1), *map(in_stock, (VARIANT, SIBLING, 999)))
    assert (mirror.state(999), mirror.unplaced_variants()) == (VERIFYING, [])


@pytest.mark.parametrize(
    ("policy", "unplaced_variants", "queue"),
    [
        pytest.param(Policy(POLICY.sellable, SETTLE, items=frozenset({5})), [], [], id="outside"),
        pytest.param(
            Policy(POLICY.sellable, SETTLE, has_categories=True), [999], [], id="perhaps outside"
        ),
    ],
)
def test_an_unknown_variant_outside_the_catalog_is_not_searched(
    policy: Policy, unplaced_variants: list[int], queue: list[int]
) -> None:
    """Only reads show which items a category has."""
    mirror = Mirror(policy)
    body = GENUINE.replace(b"%d" % VARIANT, b"999").replace(b'"item":77', b'"item":88')[:-1]
    mirror.take(body)
    assert (mirror.unplaced_variants(), list(mirror.queue())) == (unplaced_variants, queue)
    mirror.db.close()


def test_ids_of_other_objects_are_no_variant_ids(mirror: Mirror) -> None:
    """A colour has an id too, and an id without an object type may belong to anything."""
    twelve = ItemRead(5, "Mug", (in_stock(12), in_stock(4)), NOW - SETTLE, NOW - SETTLE)
    reads.apply(mirror.db, twelve, POLICY, now=NOW - SETTLE)
    mirror.take(GENUINE[:-1], ABOUT_NOTHING.replace(b"%d" % VARIANT, b"999"))
    assert mirror.state() == VERIFYING
    assert (mirror.state(12), mirror.state(4)) == (UNTOUCHED, UNTOUCHED)
    assert mirror.unplaced_variants() == []


def test_a_body_without_a_type_verifies_a_known_variant_id(mirror: Mirror) -> None:
    """It has neither an action nor an object, and the id belongs to no item."""
    assert mirror.take(ABOUT_NOTHING)[0].outcome == "quarantined"
    assert mirror.state() == VERIFYING


def test_an_item_event_reads_the_item(mirror: Mirror) -> None:
    """It is ignored, as the contract says, and its variants stay sellable."""
    body = {"object": "item", "event": {"action": "item-deleted", "object_id": ITEM}}
    assert mirror.take(json.encode(body))[0].outcome == "ignored"
    assert mirror.queue() == {ITEM: (None, "2026-03-01T12:11:00.000000Z")}
    assert mirror.state() == UNTOUCHED
    body["event"]["object_id"] = 5  # type: ignore[index]
    mirror.take(json.encode(body))
    assert list(mirror.queue()) == [ITEM]


def test_a_variant_action_on_an_item_reads_the_item(mirror: Mirror) -> None:
    """The id may be the item's or a variant's, so both are read."""
    body = {"object": "item", "event": {"action": "item-variant-removed", "object_id": ITEM}}
    assert mirror.take(json.encode(body))[0].outcome == "verifying"
    assert ITEM in mirror.queue()
    body["event"]["object_id"] = VARIANT  # type: ignore[index]
    mirror.take(json.encode(body))
    assert mirror.state() == VERIFYING


def test_a_truncated_item_event_verifies_no_variant(mirror: Mirror) -> None:
    """It says that the item changed; the item is read."""
    body = json.encode({"id": ITEM, "object": "item", "data": {"item_variants": [{"id": VARIANT}]}})
    assert mirror.take(body[:-1])[0].outcome == "quarantined"
    assert (mirror.state(), list(mirror.queue())) == (UNTOUCHED, [ITEM])


@pytest.mark.parametrize("fails", ["update", "mention"])
def test_a_delivery_that_fails_to_apply_is_verified(mirror: Mirror, fails: str) -> None:
    """Its variant is verified; if that cannot be stored either, the body is stored."""

    class Memory(Database):
        async def write_blocking_loop(self, function: Callable[[sqlite3.Connection], T]) -> T:
            return function(mirror.db)

    def apply(
        db: sqlite3.Connection, batch: Sequence[Delivery], *_: Any, **__: Any
    ) -> list[DeliveryResult]:
        del db
        if any(one.update or (fails == "mention" and one.mention) for one in batch):
            raise OverflowError("a defect")
        return mirror.apply(batch)

    async def submit() -> str:
        clock = SteadyClock()
        batch_writer = BatchWriter(
            Memory(Path("not-used.db")), clock, RemoteClock(clock), ActiveConfig(Config())
        )
        return await batch_writer.submit(parse(GENUINE, NOW))

    with mock.patch("syncd.webhook.batch_writer.deliveries.apply", apply):
        assert asyncio.run(submit()) == "quarantined"
    assert mirror.state() == (VERIFYING if fails == "update" else UNTOUCHED)


def test_explain_names_the_quarantined_delivery(mirror: Mirror) -> None:
    """Also for a variant that is one of several in it."""
    body = GENUINE.replace(b'"object_id":%d' % VARIANT, b'"object_id":%d' % SIBLING)
    mirror.take(body)
    for variant_id in (VARIANT, SIBLING):
        history = variant_history(mirror.db, variant_id)
        assert any("Delivery 1 was not understood" in one for one in sentences(history))
        assert decisions(history)[0]["outcome"] == "quarantined"
    assert not variant_history(mirror.db, 5).deliveries


def test_a_replay_that_understands_the_body_replaces_the_quarantine(mirror: Mirror) -> None:
    """As after an upgrade: the value is verified until a read ends it."""
    mirror.take(CUT)
    mirror.db.execute("UPDATE deliveries SET body = ?", (GENUINE,))

    def again() -> list[str | None]:
        ids = replay.quarantined(mirror.db)
        done = replay.apply(mirror.db, ids, POLICY, now=NOW, source_now=NOW, missed_grace=GRACE)
        return [one.outcome for one in done]

    assert again() == ["verifying"]
    assert again() == []
    stored = mirror.db.execute("SELECT variant_id, outcome, named_variants FROM deliveries")
    assert stored.fetchall() == [(VARIANT, "verifying", None)]
    mirror.read(NOW + SETTLE, in_stock(VARIANT, "out_of_stock"), in_stock(SIBLING))
    assert mirror.state() == ("out_of_stock", 0, 0)


# Any body that is derived from a genuine one.

_NAMED = re.compile(rb'"(?:id|object_id)":%d(?!\d)' % VARIANT)


@given(
    start=st.integers(0, len(GENUINE)),
    length=st.integers(0, len(GENUINE)),
    put=st.binary(max_size=3)
    | st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b"\\ud800", b"NaN", b"null", b"{}"]),
)
def test_a_damaged_body_never_leaves_its_variant_sellable(
    start: int, length: int, put: bytes
) -> None:
    """The body says `out_of_stock`; any part of it is replaced."""
    body = GENUINE[:start] + put + GENUINE[start + length :]
    if _NAMED.search(body) is None:
        return
    mirror = Mirror()
    (one,) = mirror.take(body)
    assert one.outcome in {"applied", "verifying", "quarantined"}
    assert mirror.state()[1] == 0, (one, body)
    assert ITEM in mirror.queue()
    mirror.db.close()


def test_a_truncated_body_never_leaves_its_variant_sellable() -> None:
    """Each cut that begins or ends at a quote, a comma or a brace."""
    places = [i for i, byte in enumerate(GENUINE) if byte in b'",}']
    bodies = {GENUINE[:end] for end in range(len(GENUINE))}
    bodies |= {GENUINE[:a] + GENUINE[b:] for a in places for b in places if a < b}
    mirror = Mirror()
    failed = []
    for body in bodies:
        if _NAMED.search(body) is None:
            continue
        mirror.db.execute("BEGIN")
        mirror.take(body)
        if mirror.state()[1]:
            failed.append(body)
        mirror.db.execute("ROLLBACK")
    mirror.db.close()
    assert not failed, failed[:3]


@pytest.mark.parametrize(
    "body",
    [
        b'"id":' * 200_000,
        b'"' + b"\\" * 1_000_000,
        b'"object_id"' + b" " * 1_000_000,
        b"object" * 170_000,
        b'{"item":{"id":[' * 60_000,
        b'"object":"' + b"a" * 1_000_000,
    ],
    ids=["keys", "backslashes", "spaces", "words", "braces", "a kind"],
)
def test_scanning_a_large_body_for_ids_is_fast(body: bytes) -> None:
    """A body may have a megabyte, and every delivery waits for it."""
    began = time.process_time()
    mention_in(body)
    assert time.process_time() - began < 0.5


def test_only_the_first_ids_of_a_body_are_verified() -> None:
    """A body with thousands of ids is invalid, and each id may cost a read."""
    body = b'{"object":"item_variant",' + b",".join(b'"id":%d' % n for n in range(1, 5000))
    mention = mention_in(body)
    assert mention is not None
    assert mention.variant_ids == tuple(range(1, 21))


# Reads.


def test_a_variant_missing_in_a_partial_answer_is_not_removed(mirror: Mirror) -> None:
    """It stays unconfirmed; the variants in the answer are updated."""
    before = mirror.row(SIBLING)
    mirror.read(NOW, in_stock(VARIANT, "low_stock"), is_whole=False)
    assert mirror.state() == ("low_stock", 1, 0)
    assert mirror.row(SIBLING) == before
    assert mirror.row()["confirmed_at"] == "2026-03-01T12:10:00.000000Z"
    mirror.read(NOW + SETTLE, in_stock(VARIANT, "low_stock"), is_whole=False)
    assert mirror.row()["confirmed_at"] == "2026-03-01T12:11:00.000000Z"
    mirror.read(NOW + 2 * SETTLE, in_stock(VARIANT, "low_stock"))
    assert mirror.row(SIBLING)["removed"] == 1


def test_a_variant_missing_in_a_partial_answer_is_read_again(mirror: Mirror) -> None:
    """Some minutes later, if it is verifying or its delivery is not confirmed."""
    mirror.take(CUT)
    mirror.read(NOW + SETTLE, in_stock(SIBLING), is_whole=False)
    assert mirror.state() == VERIFYING
    assert mirror.queue() == {ITEM: (None, "2026-03-01T12:21:00.000000Z")}
    mirror.read(NOW + 11 * SETTLE, in_stock(VARIANT), is_whole=False)
    assert (mirror.state(), mirror.queue()) == (UNTOUCHED, {})


def test_a_variant_with_two_values_in_one_answer_is_verified(mirror: Mirror) -> None:
    """It stays sellable while all its values are, until an answer has one value."""
    twice = (in_stock(VARIANT), in_stock(VARIANT, "out_of_stock"), in_stock(SIBLING))
    mirror.read(NOW, *twice)
    assert (mirror.state(), mirror.state(SIBLING)) == (VERIFYING, UNTOUCHED)
    assert mirror.queue() == {ITEM: (None, "2026-03-01T12:11:00.000000Z")}
    mirror.read(NOW + SETTLE, *twice)
    assert (mirror.state(), mirror.queue()) == (VERIFYING, {})
    mirror.read(NOW + 2 * SETTLE, in_stock(VARIANT, "out_of_stock"), in_stock(SIBLING))
    assert mirror.state() == ("out_of_stock", 0, 0)
    mirror.read(NOW + 3 * SETTLE, in_stock(5), in_stock(5, "low_stock"), item_id=6)
    assert mirror.state(5) == ("low_stock", 1, 1)
    mirror.read(NOW + 3 * SETTLE, in_stock(8), in_stock(8, "no"), item_id=9)
    assert mirror.state(8) == ("no", 0, 1)
