"""`[[push]]`: every fault at once with its table and key, and no secret in any form."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pushing import SECRET

from syncd.config import Config, Push, SigningSecret, in_force, load, to_toml
from syncd.config.pushes import find_push
from syncd.config.types import parse_signing_secret
from syncd.errors import ConfigurationError, UsageError

PUSH = f"""[[push]]
name = "shop"
url = "https://shop.example.com/hook/token?key=token"
secret = "{SECRET}"
[[push]]
name = "index"
command = ["/usr/bin/index", "token"]
batch = 7
only = "listings"
"""


def loaded(folder: Path, text: str, *, with_keys: bool = True) -> Config:
    path = folder / "config.toml"
    path.write_text(text)
    return load(path, {}, with_keys=with_keys)


def errors_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    return caught.value.errors


def test_pushes_are_loaded_in_their_order(tmp_path: Path) -> None:
    """With their defaults, and the secret of each URL."""
    config = loaded(tmp_path, PUSH)
    assert [push.name for push in config.push] == ["shop", "index"]
    assert (config.push[0].batch, config.push[0].only) == (100, "all")
    assert config.push[1] == Push(
        name="index", command=("/usr/bin/index", "token"), batch=7, only="listings"
    )
    assert {name: one.reveal() for name, one in config.signing_secrets.items()} == {"shop": SECRET}


def test_the_printed_configuration_masks_secrets(tmp_path: Path) -> None:
    """Also the path of the URL and the arguments, which may be tokens."""
    config = loaded(tmp_path, PUSH)
    text = to_toml(config)
    for shown in (text, str(in_force(config)), repr(config.push[0].secret), str(config)):
        assert SECRET not in shown
        assert SECRET.removeprefix("whsec_") not in shown
    assert "token" not in text
    assert tomllib.loads(text) == in_force(config)
    assert in_force(config)["push"][0] == {
        "name": "shop",
        "url": "https://shop.example.com/********",
        "command": [],
        "secret": "********",
        "secret_file": "",
        "batch": 100,
        "only": "all",
    }
    assert "push" not in in_force(Config())


def test_logs_mask_the_secret_in_each_form(tmp_path: Path) -> None:
    """A library may print it without its prefix, and an error may contain the URL."""
    secrets = loaded(tmp_path, PUSH).secrets
    assert {SECRET, SECRET.removeprefix("whsec_")} <= secrets
    assert "https://shop.example.com/hook/token?key=token" in secrets


def test_a_secret_file_is_beside_the_configuration(tmp_path: Path) -> None:
    """Its last line end does not matter; who may not read it gets no error without keys."""
    text = """[[push]]\nname = "x"\nurl = "http://127.0.0.1:9/"\nsecret_file = "secret"\n"""
    (error,) = errors_of(tmp_path, text)
    assert error.startswith("push[1].secret_file: cannot be read: No such file or directory; ")
    assert loaded(tmp_path, text, with_keys=False).signing_secrets == {}
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    config = loaded(tmp_path, text)
    assert config.push[0].secret_file == tmp_path / "secret"
    assert config.signing_secrets["x"].reveal() == SECRET
    (tmp_path / "secret").write_text("hush")
    (error,) = errors_of(tmp_path, text)
    assert error.startswith("push[1].secret_file: the secret in it must begin with whsec_")
    assert "hush" not in error


def test_every_error_is_reported_at_once(tmp_path: Path) -> None:
    """Each names its table by number and its key, and repeats no value."""
    text = """
    push = 1
    """
    assert errors_of(tmp_path, text) == ["push: must be written as [[push]], once for each"]
    assert errors_of(tmp_path, "push = [1]") == [
        "push[1]: must be a section [push[1]]",
        "push[1].name: is missing; its position in the feed is stored by this name",
        "push[1].url: is missing; a push needs a url or a command",
    ]
    found = errors_of(
        tmp_path,
        """
        [dreamship]
        calls_per_minute = 0
        [[push]]
        name = "hush hush"
        url = "http://hush.example.com/"
        [[push]]
        name = "x"
        url = "https://user:hush@example.com/"
        secret = "hush"
        [[push]]
        name = "x"
        command = ["a"]
        url = "https://example.com/#hush"
        bach = 7
        [[push]]
        name = "y"
        command = ["a"]
        secret = "whsec_AAAA"
        batch = 1001
        only = "hush"
        [[push]]
        name = "z"
        url = "https://example.com/"
        secret_file = ""
        [[push]]
        name = "w"
        url = "https://example.com/"
        command = ["x"]
        """,
    )
    assert [error.partition(": ")[0] for error in found] == [
        "dreamship.calls_per_minute",
        "push[1].name",
        "push[1].url",
        "push[2].url",
        "push[2].secret",
        "push[3].url",
        "push[3].bach",
        "push[4].secret",
        "push[4].batch",
        "push[4].only",
        "push[2].name",
        "push[3].name",
        "push[6].command",
        "push[5].secret",
        "push[6].secret",
    ]
    assert "hush" not in str(found)


@pytest.mark.parametrize(
    ("secret", "error"),
    [
        ("", "must begin with whsec_"),
        ("hush", "must begin with whsec_"),
        ("whsec_", "has 0 bytes"),
        ("whsec_hush!", "must have base64"),
        ("whsec_" + "A" * 31, "has 23 bytes"),
        ("whsec_" + "A" * 88, "has 66 bytes"),
    ],
)
def test_a_secret_that_no_library_takes_is_an_error(secret: str, error: str) -> None:
    """With the way to make one, and without the secret."""
    with pytest.raises(ValueError, match=error) as caught:
        parse_signing_secret(secret)
    assert "hush" not in str(caught.value)


def test_a_secret_may_lack_its_padding() -> None:
    """Some tools leave it out."""
    for text in ("whsec_" + "A" * 32, "whsec_" + "A" * 43, "whsec_" + "A" * 43 + "="):
        assert parse_signing_secret(f" {text}\n") == SigningSecret(text)


def test_a_push_is_found_by_name(tmp_path: Path) -> None:
    """The only one needs none."""
    config = loaded(tmp_path, PUSH)
    assert find_push(config.push, "index").name == "index"
    assert find_push(config.push[:1], None).name == "shop"
    for name in (None, "nobody"):
        with pytest.raises(UsageError) as caught:
            find_push(config.push, name)
        assert caught.value.hint == "the configuration has: shop, index"
