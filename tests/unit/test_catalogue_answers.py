"""Answers become records within bounds, the same records whether decoded whole or in slices."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.core.lenient_json import Conflict, NotJsonError
from syncd.dreamship import catalogue_answers, json_slices
from syncd.dreamship.catalogue_answers import (
    MAX_ROWS,
    MAX_VARIANTS,
    MAX_VARIANTS_OF_PAGE,
    item_in,
    listing_in,
)
from syncd.dreamship.content_coding import coding_of, decoded
from syncd.dreamship.json_slices import MAX_PIECE_BYTES, BeyondBoundsError, JsonSlices
from syncd.errors import SourceAnswerInvalid

# Members in any order, some of them twice, some as no strict decoder takes them.
odd_values = st.sampled_from(
    [
        b"null",
        b"7",
        b'"8"',
        b"-1",
        b"NaN",
        b"1e999",
        b'"in_stock"',
        b'"\\ud83d"',
        b'"a\\u003ab"',
        b'"quote \\" brace } bracket ] backslash \\\\"',
        b'"\xff\xfe"',
        b'"tab\there"',
        b'{"name": "Red", "x": [1, {"y": "]"}]}',
        b'{"name": "Red", "name": "Blue"}',
        b"[]",
        b"{}",
        b"9" * 400,
    ]
)
blanks = st.sampled_from([b"", b" ", b"\n\t ", b"\r\n"])


def objects(values: dict[str, st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    """Return objects with some of these members, with others, and with some of them twice."""
    names = st.lists(st.sampled_from([*values, "description", 'odd \\" name:']), max_size=8)

    @st.composite
    def draw_one(draw: st.DrawFn) -> bytes:
        between = draw(blanks)
        members = []
        observed = set()
        for name in draw(names):
            # The two long lists are not compared with each other when they occur twice.
            if name in observed and name in {"item_variants", "data"}:
                continue
            observed.add(name)
            value = draw(values.get(name, odd_values))
            members.append(between.join([b'"%s"' % name.encode(), b":", value]))
        return b"{" + between + (between + b"," + between).join(members) + between + b"}"

    return draw_one()


def lists(of: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(of | odd_values, max_size=5).map(lambda one: b"[" + b" ,".join(one) + b"]")


ids = st.integers(1, 9).map(lambda number: b"%d" % number) | odd_values
variants = objects({"id": ids, "availability": odd_values, "name": odd_values, "color": odd_values})
rows = objects({"id": ids, "name": odd_values, "item_variants": lists(variants) | odd_values})
pages = objects(
    {
        "data": lists(rows) | odd_values,
        "paging": objects({"count": odd_values, "next": odd_values}) | odd_values,
    }
)
documents = st.tuples(
    blanks | st.just(b"\xef\xbb\xbf"), rows | pages, blanks | st.sampled_from([b"\0", b" end"])
).map(b"".join)


def outcome(find: Any, body: bytes, *, whole_bytes: int) -> Any:
    try:
        return find(bytearray(body), whole_bytes=whole_bytes)
    except (NotJsonError, SourceAnswerInvalid) as error:
        return type(error)


def same(one: Any) -> Any:
    """Return what makes two outcomes equal: a reason why it is no JSON is as good as another."""
    return "no answer" if isinstance(one, type) else one


@given(body=documents)
@example(body=b'{"id":1,"id":2,"item_variants":[]}')
@example(body=b'{"id":1,"item_variants":[{"id":5,"availability":"a","availability":"b"}]}')
@example(body=b'{"id":1,"item_variants":null,"item_variants":[{"id":5}]}')
def test_slices_and_the_whole_document_give_the_same_record(body: bytes) -> None:
    """For items and for pages, in every notation that the lenient decoder accepts."""
    for find in (item_in, listing_in):
        whole = outcome(find, body, whole_bytes=10**9)
        assert same(outcome(find, body, whole_bytes=-1)) == same(whole)


@given(body=documents, data=st.data())
def test_a_truncated_document_is_invalid_in_slices(body: bytes, data: st.DataObject) -> None:
    """Even if the missing part would not matter."""
    begun = bytearray(body[: data.draw(st.integers(0, body.rindex(b"}")))])
    for find in (item_in, listing_in):
        with pytest.raises((NotJsonError, SourceAnswerInvalid)):
            find(begun, whole_bytes=-1)


@given(body=st.binary(max_size=200) | st.text('{}[]":,\\ x1', max_size=60).map(str.encode))
def test_slicing_any_bytes_ends_with_a_record_or_an_error(body: bytes) -> None:
    """The slicer never reads past the end, and raises no other exception."""
    for find in (item_in, listing_in):
        outcome(find, body, whole_bytes=-1)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=30,
    ),
    step=st.integers(1, 9),
)
def test_skipping_a_value_in_steps_of_any_size_finds_its_end(value: Any, step: int) -> None:
    """The next value is read correctly if a step ends at any place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_slices, "_STEP_BYTES", step)
        for is_ascii in (True, False):
            text = json.dumps({"x": value, "id": 5}, ensure_ascii=is_ascii)
            slices = JsonSlices(text.encode(errors="surrogatepass"))
            found = {name: slices.value() for name in slices.document() if name == "id"}
            assert found == {"id": 5}


def tiny(count: int) -> bytes:
    return b",".join(b'{"id":%d}' % number for number in range(1, count + 1))


@pytest.mark.parametrize("whole_bytes", [10**9, -1], ids=["whole", "in slices"])
def test_an_item_with_too_many_variants_is_invalid(whole_bytes: int) -> None:
    """The largest allowed number is read; one more makes the answer invalid."""
    most = bytearray(b'{"id":7,"item_variants":[%s]}' % tiny(MAX_VARIANTS))
    variants = item_in(most, whole_bytes=whole_bytes).variants
    assert variants is not None
    assert len(variants) == MAX_VARIANTS
    more = bytearray(b'{"id":7,"item_variants":[%s]}' % tiny(MAX_VARIANTS + 1))
    with pytest.raises(SourceAnswerInvalid, match=r"more than 10,000 variants"):
        item_in(more, whole_bytes=whole_bytes)


@pytest.mark.parametrize("whole_bytes", [10**9, -1], ids=["whole", "in slices"])
def test_a_row_with_too_many_variants_is_listed_without_them(whole_bytes: int) -> None:
    """The item is then read by itself; the variants of the other rows stay."""
    long = b'{"id":1,"item_variants":[%s]}' % tiny(MAX_VARIANTS + 1)
    short = b'{"id":2,"item_variants":[{"id":5}]}'
    page = bytearray(b'{"data":[%s,%s],"paging":{}}' % (long, short))
    found = listing_in(page, whole_bytes=whole_bytes)
    assert [item.variants is None for item in found.items] == [True, False]
    assert not found.broken_rows


@pytest.mark.parametrize("whole_bytes", [10**9, -1], ids=["whole", "in slices"])
def test_only_the_first_rows_of_a_page_have_variants(
    whole_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows past the bound are listed without their variants."""
    monkeypatch.setattr(catalogue_answers, "MAX_VARIANTS_OF_PAGE", 25)
    row = b'{"id":1,"item_variants":[%s]}' % tiny(10)
    page = bytearray(b'{"data":[%s],"paging":{}}' % b",".join([row] * 4))
    found = listing_in(page, whole_bytes=whole_bytes)
    stored = [item.variants is not None for item in found.items]
    assert stored == [True, True, False, False]
    assert MAX_VARIANTS_OF_PAGE == 100_000


@pytest.mark.parametrize("whole_bytes", [10**9, -1], ids=["whole", "in slices"])
@pytest.mark.parametrize("row", [b'{"id":1}', b"null", b"{}"])
def test_a_page_with_too_many_rows_is_invalid(row: bytes, whole_bytes: int) -> None:
    """A list may ignore the requested page size, up to a bound."""
    page = b'{"data":[%s],"paging":{}}'
    most = bytearray(page % b",".join([*[row] * (MAX_ROWS - 1), b'{"id":1}']))
    assert listing_in(most, whole_bytes=whole_bytes).items
    more = bytearray(page % b",".join([row] * (MAX_ROWS + 1)))
    with pytest.raises(SourceAnswerInvalid, match=r"more than 10,000 rows"):
        listing_in(more, whole_bytes=whole_bytes)


def test_an_oversized_variant_leaves_the_others_readable() -> None:
    """The item counts as incomplete then, so that no variant counts as missing."""
    large = b'{"id":1,"name":"%s"}' % (b"x" * MAX_PIECE_BYTES)
    item = item_in(bytearray(b'{"id":7,"item_variants":[%s,{"id":2}]}' % large), whole_bytes=-1)
    assert item.variants is not None
    assert [variant.variant_id for variant in item.variants] == [2]
    assert not item.is_whole


def test_a_row_with_an_oversized_name_leaves_the_others_readable() -> None:
    """The other rows of its page are listed."""
    large = b'{"id":1,"name":"%s"}' % (b"x" * MAX_PIECE_BYTES)
    found = listing_in(bytearray(b'{"paging":{},"data":[%s,{"id":2}]}' % large), whole_bytes=-1)
    assert [item.item_id for item in found.items] == [2]
    assert found.broken_rows == 1


@pytest.mark.parametrize(
    "value",
    [b"[" + b"{}," * 50 + b"{}]", b"[" + b"[[]]," * 50 + b"[]]", tiny(60).join([b"[", b"]"])],
)
def test_a_document_with_too_many_values_is_invalid(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any place in the answer, because each value takes time."""
    monkeypatch.setattr(json_slices, "MAX_PIECES", 50)
    with pytest.raises(BeyondBoundsError, match="more than 50 values"):
        item_in(bytearray(b'{"id":7,"x":%s,"item_variants":[]}' % value), whole_bytes=-1)


def test_a_repeated_key_is_a_conflict_in_slices() -> None:
    """As in the lenient decoder."""
    slices = JsonSlices(b'{"id":{"a":1,"a":2}}')
    assert [slices.value() for _ in slices.document()] == [{"a": Conflict((1, 2))}]


# --- codings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [[], [""], ["identity"], [" Identity "], [", ,"]])
def test_an_uncompressed_answer_is_accepted(lines: list[str]) -> None:
    """In every form of the headers."""
    assert coding_of(lines) == "identity"


@pytest.mark.parametrize("lines", [["gzip"], ["GZIP"], [" gzip ,"]])
def test_gzip_is_accepted_in_any_case(lines: list[str]) -> None:
    """Names of codings are case-insensitive."""
    assert coding_of(lines) == "gzip"


@pytest.mark.parametrize(
    "lines",
    [
        ["gzip, gzip"],
        ["gzip", "gzip"],
        ["gzip,identity"],
        ["identity", "GZIP"],
        ["GZIP,GZIP"],
        ["x-gzip"],
        ["deflate"],
        ["br"],
        ["zstd"],
        ["gzip;q=1"],
        ["x" * 9000],
    ],
)
def test_any_other_coding_is_refused(lines: list[str]) -> None:
    """Two codings too, on one header line or on two; the error is short."""
    with pytest.raises(SourceAnswerInvalid, match="the answer is encoded") as error:
        coding_of(lines)
    assert len(error.value.message) < 100


@given(body=st.binary(max_size=3000), at_most=st.integers(0, 3000), level=st.integers(0, 9))
def test_gzip_is_decoded_within_the_bound(body: bytes, at_most: int, level: int) -> None:
    """A longer body is refused."""
    packed = bytearray(gzip.compress(body, level))
    if len(body) <= at_most:
        assert decoded(packed, "gzip", at_most=at_most) == body
        return
    with pytest.raises(SourceAnswerInvalid, match=re.escape(f"more than {at_most:,} bytes")):
        decoded(packed, "gzip", at_most=at_most)


@given(body=st.binary(), at_most=st.integers(0, 100))
def test_no_body_is_decoded_beyond_the_bound(body: bytes, at_most: int) -> None:
    """With any bytes and any coding."""
    for coding in ("gzip", "identity"):
        try:
            found = decoded(bytearray(body), coding, at_most=at_most)
        except SourceAnswerInvalid:
            continue
        assert len(found) <= at_most


MEMBER = gzip.compress(b"{}")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="plain"),
        pytest.param(zlib.compress(b"{}"), id="zlib"),
        pytest.param(MEMBER[:-1], id="cut short"),
        pytest.param(MEMBER[:12], id="cut short early"),
        pytest.param(MEMBER[:-5] + b"\0" + MEMBER[-4:], id="a wrong checksum"),
        pytest.param(MEMBER + b"x", id="followed by a byte"),
        pytest.param(MEMBER + b"\0" * 100_000, id="followed by many"),
        pytest.param(MEMBER + MEMBER, id="two members"),
    ],
)
def test_gzip_with_a_second_member_or_trailing_bytes_is_refused(body: bytes) -> None:
    """Programs read such bodies differently."""
    with pytest.raises(SourceAnswerInvalid):
        decoded(bytearray(body), "gzip", at_most=1000)
    assert decoded(bytearray(MEMBER), "gzip", at_most=1000) == b"{}"
