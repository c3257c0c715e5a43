"""The file `catalog.listings`: each form that a spreadsheet or a script writes, and each error."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.config.listings_file import MAX_BYTES, read
from syncd.core.listings import MAX_ERRORS, Listing, differences, parse
from syncd.core.model import MAX_ID
from syncd.errors import ListingsInvalid

RED = Listing("TEE-RED", 48_211, "Tee, red")
BLUE = Listing("TEE-BLUE", 48_212)

NO_NUMBER = (
    "line {}: variant_id {!r} is no whole number above 0 "
    "(in a spreadsheet, format the column as a number without decimals)"
)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            'sku,variant_id,title\nTEE-RED,48211,"Tee, red"\nTEE-BLUE,48212,\n', id="plain"
        ),
        pytest.param(
            "sku;variant_id;title\r\nTEE-RED;48211;Tee, red\r\nTEE-BLUE;48212;\r\n", id="semicolons"
        ),
        pytest.param(
            "sep=;\nsku;variant_id;title\nTEE-RED;48211;Tee, red\nTEE-BLUE;48212;\n",
            id="line with the separator",
        ),
        pytest.param(
            '\ufeffsku,variant_id,title\nTEE-RED,48211,"Tee, red"\nTEE-BLUE,48212,\n',
            id="byte order mark",
        ),
        pytest.param(
            'Title,Price,Variant_ID, SKU \n"Tee, red",9,48211,TEE-RED\n,9,48212,TEE-BLUE',
            id="other columns, order and case",
        ),
        pytest.param(
            'sku,variant_id,title\n\nTEE-RED, 48211 ,"Tee, red"\n,,\nTEE-BLUE,48212',
            id="empty lines and spaces",
        ),
        pytest.param(
            'sku,variant_id,title\rTEE-RED,48211,"Tee, red"\rTEE-BLUE,48212\r',
            id="ends of lines of an old Mac",
        ),
        pytest.param(
            'sku,variant_id,title\nTEE-RED,48211,"Tee, red",,\nTEE-BLUE,48212\n',
            id="rows of another length",
        ),
    ],
)
def test_every_usual_form_is_read(content: str) -> None:
    """Commas or semicolons, with and without a mark, any order of columns."""
    assert parse(content.encode()) == [RED, BLUE]


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        pytest.param(b"", ["it is empty"], id="empty"),
        pytest.param(b" \n\n", ["it is empty"], id="only spaces"),
        pytest.param(
            b"sku,variant_id\n", ["it has no listing below its header"], id="only a header"
        ),
        pytest.param("sku,variant_id\n".encode("utf-16"), ["it is UTF-16, not UTF-8"], id="UTF-16"),
        pytest.param(b"PK\x03\x04\x14", ["it is a spreadsheet or a zip file, not CSV"], id="xlsx"),
        pytest.param(b"sku,variant_id\nA,1\nB\xe9,2\n", ["line 3: it is not UTF-8"], id="Latin 1"),
        pytest.param(
            b"ds_live_secret\n",
            ["line 1: the header must name the columns sku and variant_id"],
            id="another file: its text is not repeated",
        ),
        pytest.param(
            b"sku\tvariant_id\nA\t1\n",
            ["line 1: the columns must be separated by commas or semicolons"],
            id="tabs",
        ),
        pytest.param(
            b"sku,variant_id,SKU\nA,1,B\n", ["line 1: two columns are named sku"], id="column twice"
        ),
        pytest.param(
            b"sku,variant_id\nA,1\nB,2\nA,3\n",
            ["line 4: sku 'A' occurs in line 2 too"],
            id="duplicate SKU",
        ),
        pytest.param(
            b"sku,variant_id\n,1\nB,\nC,x\nD,0\nE,1.0\nF,1E+11\nG,-1\nH\n",
            [
                "line 2: the sku is empty",
                "line 3: sku 'B' has no variant_id",
                *(
                    NO_NUMBER.format(line, text)
                    for line, text in ((4, "x"), (5, "0"), (6, "1.0"), (7, "1E+11"), (8, "-1"))
                ),
                "line 9: it has 1 field, and the header 2",
            ],
            id="each error with its line",
        ),
        pytest.param(
            b"sku,variant_id\nA;B,1,2\n", ["line 2: it has 3 fields, and the header 2"], id="comma"
        ),
        pytest.param(
            b'sku,variant_id\nA,1\n"B,2\nC,3\n',
            ["line 3: a quotation mark that is opened here or later is never closed"],
            id="a quotation mark that is never closed",
        ),
        pytest.param(
            b'sku,variant_id\nA,1\n"B"x,2\n', ["line 3: the quotation marks are wrong"], id="quotes"
        ),
        pytest.param(
            b"sku,variant_id\nA\x00B,1\n",
            ["line 2: sku 'A\\x00B' has a character that cannot be printed"],
            id="NUL",
        ),
        pytest.param(
            b"sku,variant_id\n" + b"A" * 201 + b",1\n",
            ["line 2: the sku is longer than 200 characters"],
            id="long SKU",
        ),
        pytest.param(
            f"sku,variant_id\nA,{MAX_ID + 1}\n".encode(),
            [NO_NUMBER.format(2, str(MAX_ID + 1))],
            id="id too large",
        ),
    ],
)
def test_every_error_is_named_with_its_line(content: bytes, errors: list[str]) -> None:
    """All errors at once, and none repeats text of a file that has no listings."""
    with pytest.raises(ListingsInvalid) as caught:
        parse(content)
    assert caught.value.errors == errors
    assert caught.value.hint


def test_many_errors_are_counted() -> None:
    """A wrong column has an error in each line; the message stays short."""
    lines = "".join(f"SKU{n},none\n" for n in range(1000))
    with pytest.raises(ListingsInvalid) as caught:
        parse(f"sku,variant_id\n{lines}".encode())
    assert len(caught.value.errors) == MAX_ERRORS + 1
    assert caught.value.errors[-1] == "and 980 more errors"


PRINTABLE = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="\ufeff"),
    min_size=1,
    max_size=30,
)


@given(
    st.dictionaries(
        PRINTABLE, st.tuples(st.integers(1, MAX_ID), st.none() | PRINTABLE), min_size=1
    ),
    st.sampled_from([",", ";"]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_file_of_any_program_is_read(
    skus: dict[str, tuple[int, str | None]], delimiter: str, has_mark: bool, end: str
) -> None:
    """With any texts: with separators, quotation marks, letters of any script."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerow(["sku", "variant_id", "title"])
    writer.writerows([sku, variant_id, title] for sku, (variant_id, title) in skus.items())
    content = file.getvalue().encode("utf-8-sig" if has_mark else "utf-8")
    assert parse(content) == [Listing(sku, *rest) for sku, rest in skus.items()]


@given(st.binary(max_size=200), st.sampled_from([b"", b"sku,variant_id\nA,1\n"]))
def test_any_bytes_are_listings_or_an_error(content: bytes, before: bytes) -> None:
    """Nothing else is raised, and nothing without a SKU and an id is returned."""
    try:
        listings = parse(before + content)
    except ListingsInvalid:
        return
    assert listings
    assert all(one.sku.strip() and 0 < one.variant_id <= MAX_ID for one in listings)


def test_only_differences_are_written() -> None:
    """An unchanged SKU costs no write."""
    stored: dict[str, tuple[int, str | None]] = {
        "TEE-RED": (48_211, "Tee, red"), "OLD": (1, None), "TEE-BLUE": (1, None)
    }  # fmt: skip
    assert differences(stored, [RED, BLUE]) == ([BLUE], ["OLD"])


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "unreadable name", "too long"])
def test_a_path_that_leads_to_no_file_is_an_error(tmp_path: Path, kind: str) -> None:
    """No read waits for ever, and no read takes all memory."""
    path = tmp_path / "listings.csv"
    expected = {
        "missing": "No such file or directory",
        "folder": "is a folder, not a file",
        "pipe": "is a pipe, not a file",
        "unreadable name": "File name too long",
        "too long": "is longer than 65536 KiB",
    }[kind]
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "unreadable name":
        path = tmp_path / ("x" * 300)
    elif kind == "too long":
        with path.open("wb") as file:
            file.truncate(MAX_BYTES + 1)
    with pytest.raises(ListingsInvalid) as caught:
        read(path)
    assert caught.value.errors == [f"it cannot be read: {expected}"]
