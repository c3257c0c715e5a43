"""The SKUs of the shop: parses the CSV file `catalog.listings`.

The file has a header with the columns `sku` and `variant_id`, in any order, separated by commas or
semicolons. A column `title` is read too; others are ignored. Empty lines are skipped.
"""

from __future__ import annotations

import csv
import io
import re

from msgspec import Struct

from syncd.core.model import id_in
from syncd.core.plain_text import shortened
from syncd.errors import ListingsInvalid

MAX_SKU_CHARS = 200
MAX_TITLE_CHARS = 500
# The errors that are named; the message counts the others.
MAX_ERRORS = 20
_MAX_SHOWN_CHARS = 40
_DELIMITERS = {",": "commas", ";": "semicolons"}
# Spreadsheets write this line so that they find the separator again.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
_LINE_END = re.compile(r"[\r\n]")
_EXPORT_HINT = 'export the sheet as "CSV UTF-8"'
_NO_COLUMNS = "the header must name the columns sku and variant_id"
_HINT = "correct the file; the old listings stay in force until then"


# Not tracked by the garbage collector: it would stop everything to visit a hundred thousand.
class Listing(Struct, frozen=True, gc=False):
    """One SKU of the shop, and the variant that is made for it."""

    sku: str
    variant_id: int
    title: str | None = None


class _Columns(Struct, frozen=True):
    """The positions of the columns in each row."""

    count: int
    sku: int
    variant_id: int
    title: int | None


def parse(content: bytes) -> list[Listing]:
    """Return the listings in a CSV file; raises ListingsInvalid with each error and its line."""
    text = _text(content)
    separator = _SEPARATOR_LINE.match(text)
    first_line = 1
    if separator is not None:
        text, first_line = text[separator.end() :], 2
    header = _LINE_END.split(text, maxsplit=1)[0]
    delimiter = _delimiter(header, first_line)
    parsing = _Parsing()
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: _Columns | None = None
    begins = first_line
    try:
        for row in rows:
            if columns is None:
                columns = _columns(row, begins)
            elif any(field.strip() for field in row):
                parsing.add(row, columns, begins)
            begins = first_line + rows.line_num
    except csv.Error as error:
        parsing.errors.append(_csv_error(error, begins, first_line + rows.line_num - 1))
    return parsing.result()


class _Parsing:
    """The listings and the errors so far."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._listings: list[Listing] = []
        self._lines: dict[str, int] = {}

    def add(self, row: list[str], columns: _Columns, line: int) -> None:
        """Add one row, or its first error."""
        try:
            listing = _listing(row, columns)
            if (other := self._lines.get(listing.sku)) is not None:
                raise ValueError(f"sku {_shown(listing.sku)} occurs in line {other} too")
        except ValueError as error:
            self.errors.append(f"line {line}: {error}")
        else:
            self._lines[listing.sku] = line
            self._listings.append(listing)

    def result(self) -> list[Listing]:
        if not self._listings and not self.errors:
            # More likely an export that failed than a shop that sells nothing.
            self.errors.append("it has no listing below its header")
        if self.errors:
            more = len(self.errors) - MAX_ERRORS
            shown = self.errors[:MAX_ERRORS] + ([f"and {more} more errors"] if more > 0 else [])
            raise ListingsInvalid(shown, hint=_HINT)
        return self._listings


def _text(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ListingsInvalid(["it is UTF-16, not UTF-8"], hint=_EXPORT_HINT)
    if content.startswith(b"PK\x03\x04"):
        raise ListingsInvalid(["it is a spreadsheet or a zip file, not CSV"], hint=_EXPORT_HINT)
    if not content.strip():
        raise ListingsInvalid(["it is empty"], hint=_HINT)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ListingsInvalid([f"line {line}: it is not UTF-8"], hint=_EXPORT_HINT) from None


def _delimiter(header: str, line: int) -> str:
    """Return the separator with which the header has both columns.

    No message repeats the header: the path may lead to another file, which may contain a secret.
    """
    for delimiter in (*_DELIMITERS, "\t", "|"):
        if not {"sku", "variant_id"} <= set(_names(header, delimiter)):
            continue
        if delimiter in _DELIMITERS:
            return delimiter
        allowed = " or ".join(_DELIMITERS.values())
        raise ListingsInvalid(
            [f"line {line}: the columns must be separated by {allowed}"], hint=_EXPORT_HINT
        )
    raise ListingsInvalid([f"line {line}: {_NO_COLUMNS}"], hint=_HINT)


def _names(header: str, delimiter: str) -> list[str]:
    try:
        row = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        return []
    return [name.strip().casefold() for name in row]


def _columns(row: list[str], line: int) -> _Columns:
    names = [name.strip().casefold() for name in row]
    if not {"sku", "variant_id"} <= set(names):
        raise ListingsInvalid([f"line {line}: {_NO_COLUMNS}"], hint=_HINT)
    for name in ("sku", "variant_id", "title"):
        if names.count(name) > 1:
            raise ListingsInvalid([f"line {line}: two columns are named {name}"], hint=_HINT)
    title = names.index("title") if "title" in names else None
    return _Columns(len(names), names.index("sku"), names.index("variant_id"), title)


def _listing(row: list[str], columns: _Columns) -> Listing:
    """Return the listing of a row; raises ValueError."""
    if len(row) > columns.count and any(field.strip() for field in row[columns.count :]):
        raise ValueError(f"it has {len(row)} fields, and the header {columns.count}")
    if len(row) <= max(columns.sku, columns.variant_id):
        raise ValueError(f"it has {_fields(len(row))}, and the header {columns.count}")
    sku, named = row[columns.sku].strip(), row[columns.variant_id].strip()
    if not sku:
        raise ValueError("the sku is empty")
    if len(sku) > MAX_SKU_CHARS:
        raise ValueError(f"the sku is longer than {MAX_SKU_CHARS} characters")
    if not sku.isprintable():
        raise ValueError(f"sku {_shown(sku)} has a character that cannot be printed")
    if not named:
        raise ValueError(f"sku {_shown(sku)} has no variant_id")
    variant_id = id_in(named)
    if variant_id is None:
        raise ValueError(
            f"variant_id {_shown(named)} is no whole number above 0 "
            "(in a spreadsheet, format the column as a number without decimals)"
        )
    title = None
    if columns.title is not None and columns.title < len(row):
        title = shortened(row[columns.title].strip(), MAX_TITLE_CHARS) or None
    return Listing(sku, variant_id, title)


def _csv_error(error: csv.Error, begins: int, reached: int) -> str:
    if "field larger" in str(error) or "unexpected end" in str(error):
        return f"line {begins}: a quotation mark that is opened here or later is never closed"
    return f"line {max(begins, reached)}: the quotation marks are wrong"


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _shown(text: str) -> str:
    return repr(shortened(text, _MAX_SHOWN_CHARS))


def differences(
    stored: dict[str, tuple[int, str | None]], listings: list[Listing]
) -> tuple[list[Listing], list[str]]:
    """Return the listings that are new or different, and the SKUs that are no longer listed."""
    changed = [one for one in listings if stored.get(one.sku) != (one.variant_id, one.title)]
    gone = stored.keys() - {one.sku for one in listings}
    return changed, sorted(gone)
