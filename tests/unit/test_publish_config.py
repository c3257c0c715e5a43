"""`[publish]`: where the URL comes from, its forms, and no secret in any text."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.cli.publish import command
from syncd.config import Config, in_force, load, to_toml
from syncd.config.publish import parse_target_url, require_driver
from syncd.errors import ConfigurationError, UsageError

URL = "postgresql://syncd:s3cret%20word@db.example.com:5432/shop?sslmode=require"


def loaded(folder: Path, text: str, **environ: str) -> Config:
    path = folder / "config.toml"
    path.write_text(text)
    return load(path, environ)


def errors_of(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text, **environ)
    assert "s3cret" not in str(caught.value)
    return caught.value.errors


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg:///d?host=/run/postgresql", "postgresql+psycopg"),
        ("mysql://u:p@h/d", "mysql+pymysql"),
        ("mariadb://u:p@h:3307/d", "mysql+pymysql"),
        ("mysql+pymysql://u:p@[::1]/d", "mysql+pymysql"),
    ],
)
def test_each_form_of_a_url_has_its_driver(text: str, driver: str) -> None:
    """Also those that other programs write."""
    assert parse_target_url(text).driver == driver


@pytest.mark.parametrize(
    "text",
    ["", "x", "https://u:p@h/d", "sqlite:///x", "postgresql://u:s3cret@h", "mysql://a b@h/d"],
)
def test_another_text_is_an_error_that_repeats_nothing(tmp_path: Path, text: str) -> None:
    """It may be a password in the wrong place."""
    with pytest.raises(ValueError, match="must be postgresql://") as caught:
        parse_target_url(text)
    assert "s3cret" not in str(caught.value)
    if text:
        assert errors_of(tmp_path, f'[publish]\nurl = "{text}"')[0].startswith("publish.url: must")


def test_the_first_source_that_is_set_has_the_url(tmp_path: Path) -> None:
    """The credential, the file, the key."""
    (tmp_path / "f").write_text("mysql://u:p@file/d\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert loaded(tmp_path, "").target is None
    config = loaded(tmp_path, f'[publish]\nurl = "{URL}"', **environ)
    assert config.target == parse_target_url(URL)
    config = loaded(tmp_path, '[publish]\nurl_file = "f"', **environ)
    assert config.target == parse_target_url("mysql://u:p@file/d")
    (credentials / "publish-url").write_text("mysql://u:p@credential/d")
    config = loaded(tmp_path, '[publish]\nurl_file = "f"', **environ)
    assert config.target == parse_target_url("mysql://u:p@credential/d")


def test_errors_of_the_section(tmp_path: Path) -> None:
    """Each with its key."""
    (tmp_path / "f").write_text("s3cret")
    assert errors_of(tmp_path, f'[publish]\nurl = "{URL}"\nurl_file = "f"')[0].startswith(
        "publish.url_file: there is a url too"
    )
    assert errors_of(tmp_path, '[publish]\nurl_file = "f"')[0].startswith(
        "publish.url_file: the text in it must be"
    )
    assert errors_of(tmp_path, '[publish]\nurl_file = "s3cret"')[0].startswith(
        "publish.url_file: there is no such file"
    )
    found = errors_of(tmp_path, '[publish]\nstandby = true\nschema = "a-b"\nsource = "a b"')
    assert [one.partition(":")[0] for one in found] == ["publish.schema", "publish.source"]


def test_a_standby_needs_a_target(tmp_path: Path) -> None:
    """Without the shared database, nobody could say which host is active."""
    (found,) = errors_of(tmp_path, "[publish]\nstandby = true")
    assert found.startswith("publish.standby: needs publish.url")
    assert loaded(tmp_path, f'[publish]\nstandby = true\nurl = "{URL}"').publish.standby


def test_no_text_has_the_url_or_the_password(tmp_path: Path) -> None:
    """Logs mask the password in each form; a library may print it alone."""
    config = loaded(tmp_path, f'[publish]\nurl = "{URL}"')
    for shown in (to_toml(config), str(in_force(config)), repr(config), str(config.target)):
        assert "s3cret" not in shown
        assert "db.example.com" not in shown
    assert {"s3cret word", "s3cret%20word"} <= config.secrets
    assert any(URL.partition("://")[2] in secret for secret in config.secrets)


def test_a_password_that_is_public_is_not_masked(tmp_path: Path) -> None:
    """Otherwise each name of this program in the log would be masked."""
    config = loaded(tmp_path, '[publish]\nurl = "postgresql://syncd:syncd@h/syncd"')
    assert "syncd" not in config.secrets


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; nothing is imported before."""
    config = loaded(tmp_path, f'[publish]\nurl = "{URL}"')
    require_driver(config.target)
    require_driver(None)
    monkeypatch.setattr("syncd.config.publish.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="sqlalchemy and psycopg") as caught:
        require_driver(config.target)
    assert "pip install '.[postgresql]'" in caught.value.hint


@pytest.mark.parametrize("action", ["init", "status", "take-over"])
def test_without_a_target_each_action_says_so_and_needs_no_api_key(
    tmp_path: Path, action: str
) -> None:
    """The user of the shop may run it, and may not read the file with the keys."""
    path = tmp_path / "config.toml"
    path.write_text('[dreamship]\napi_key_file = "not-readable"\n')
    with pytest.raises(UsageError, match="nothing is published"):
        command.main([action, "--config", str(path)], standalone_mode=False)
