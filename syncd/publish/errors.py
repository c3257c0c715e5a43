"""Errors of the drivers as one line and a hint. No secret and no address of theirs is repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import exc

from syncd.config import TargetUrl
from syncd.core.plain_text import shortened
from syncd.errors import TargetError

_MAX_CHARS = 300
# Another transaction was in the way; the same one succeeds later: serialization, deadlock, lock
# timeout; and those of MySQL and Galera.
_CONFLICTS = {"40001", "40P01", "55P03", 1213, 1205, 1020}
_RIGHTS = {"42501", 1044, 1142, 1143, 1227, 1370}
_NO_TABLES = {"42P01", "3F000", "42703", 1146, 1054}
_NO_LOGIN = {"28P01", "28000", 1045, 1698}
_NO_DATABASE = {"3D000", 1049}
_NO_SPACE = {"53100", 1021, 1114, 3, 28}
_READ_ONLY = {"25006", 1290, 1792, 1836}
_HINTS = (
    (_NO_LOGIN, "check the user and the password in publish.url"),
    (_NO_DATABASE, "create the database, or correct its name in publish.url"),
    (
        _RIGHTS,
        "`syncd publish init --print` shows the tables; syncd/docs/publish.md has the GRANTs",
    ),
    (_NO_TABLES, "run `syncd publish init` as a user who may create tables"),
    (_NO_SPACE, "free some disk space on the database server"),
    (_READ_ONLY, "the server is a replica or read only; publish.url must lead to the primary"),
)
# A refused login of PostgreSQL has no SQLSTATE. In another language, it has the general hint.
_REFUSED = (
    ("password authentication failed", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("Peer authentication failed", "28000"),
    ("no password supplied", "28P01"),
)
_REACH = "check that the server runs, and that publish.url leads to it"


def code_of(error: BaseException) -> str | int | None:
    """Return the SQLSTATE of PostgreSQL, or the number of MySQL."""
    orig = getattr(error, "orig", error)
    number = orig.args[0] if orig.args else None
    if isinstance(number, int):
        return number  # PyMySQL has a SQLSTATE too, which is the same for many errors
    state = getattr(orig, "sqlstate", None)
    if state is None:
        state = next((code for text, code in _REFUSED if text in str(orig)), None)
    return None if state is None else str(state)


def lacks_tables(error: BaseException) -> bool:
    """Return whether an error means that a table or the schema does not exist."""
    return code_of(error) in _NO_TABLES


@contextlib.contextmanager
def translated(url: TargetUrl) -> Iterator[None]:
    """Translate errors of SQLAlchemy and of the drivers into TargetErrors."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise target_error(error, url) from None
    except (OSError, EOFError) as error:
        raise TargetError(f"the connection failed: {_text(error, url)}", hint=_REACH) from None
    except RuntimeError as error:
        # PyMySQL without TLS, at a server with the default password method of MySQL 8.
        if "cryptography" not in str(error):
            raise
        raise TargetError(
            "the password method of the server needs the Python package cryptography",
            hint="install it, in the checkout of syncd: pip install '.[mysql]'",
        ) from None


def target_error(error: BaseException, url: TargetUrl) -> TargetError:
    """Return an error of a driver as a TargetError."""
    code = code_of(error)
    hint = next((hint for codes, hint in _HINTS if code in codes), "")
    if not hint:
        hint = _REACH if isinstance(error, exc.OperationalError | exc.InterfaceError) else ""
    return TargetError(
        _text(error, url), hint=hint or "see the log of the server", is_conflict=code in _CONFLICTS
    )


def _text(error: BaseException, url: TargetUrl) -> str:
    orig = getattr(error, "orig", error)
    args: tuple[Any, ...] = getattr(orig, "args", ())
    # PyMySQL: (number, text).
    is_numbered = len(args) > 1 and isinstance(args[0], int)
    text = f"{args[1]} ({args[0]})" if is_numbered else str(orig)
    text = " ".join(text.split()) or type(orig).__name__
    for secret in url.secrets:
        text = text.replace(secret, url.MASK)
    return shortened(text, _MAX_CHARS)
