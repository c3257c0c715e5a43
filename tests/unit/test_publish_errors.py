"""Errors of the database drivers become one line and a hint."""

from __future__ import annotations

import pytest

from syncd.config.publish import parse_target_url
from syncd.errors import TargetError
from syncd.publish import errors

URL = parse_target_url("mysql://syncd:secret@127.0.0.1/shop")


def test_a_missing_package_for_a_password_method_is_named() -> None:
    """PyMySQL needs it for the default method of MySQL 8, unless the connection has TLS."""
    raised = RuntimeError("'cryptography' package is required for sha256_password auth methods")
    with pytest.raises(TargetError, match="cryptography") as caught, errors.translated(URL):
        raise raised
    assert "pip install '.[mysql]'" in caught.value.hint


def test_another_runtime_error_is_no_error_of_the_target() -> None:
    with pytest.raises(RuntimeError, match="defect"), errors.translated(URL):
        raise RuntimeError("a defect")
