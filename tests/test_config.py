"""One frozen configuration, or every fault of it at once; and no secret in either."""

from __future__ import annotations

import copy
import pickle
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.config import SECTIONS, Config, Secret, find, in_force, load, to_toml
from syncd.config.checks import CHECKS
from syncd.config.values import duration_text, parse_address, parse_duration
from syncd.errors import ConfigurationError

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"


def loaded(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(path, environ or {})


def faults(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text, environ)
    return caught.value.faults


def test_the_example_is_the_defaults() -> None:
    """What the example says a default is, is the default."""
    assert load(EXAMPLE, {}) == Config()


def test_the_example_documents_every_key_and_no_other() -> None:
    """A key nobody can read about does not exist."""
    document = tomllib.loads(EXAMPLE.read_text())
    documented = {(section, key) for section, values in document.items() for key in values}
    fields = {
        (section, field) for section, kind in SECTIONS.items() for field in kind.__struct_fields__
    }
    assert documented == fields
    assert fields == {(section, key) for section, keys in CHECKS.items() for key in keys}


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    """Nothing has to be written down but a key."""
    assert loaded(tmp_path, "") == Config()


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    """Nobody corrects a file fault by fault."""
    found = faults(
        tmp_path,
        """
        colour = "red"
        [dreamship]
        base_url = "http://api.dreamship.com/v1"
        calls_per_minut = 45
        calls_per_minute = 0
        timeout_seconds = true
        api_keys = "hush"
        [webhook]
        listen = "8787"
        path = "/healthz"
        max_body_bytes = 1.5
        [mirror]
        path = ""
        [catalog]
        items = [7, 7]
        categories = [0]
        [availability]
        sellable = []
        [reconcile]
        every = "6 hours"
        settle = "2h"
        removal_limit_percent = 101
        [admin]
        listen = "unix:relative"
        [notify]
        url = "gopher://x"
        command = [""]
        [log]
        level = "loud"
        """,
    )
    named = {fault.split(":")[0] for fault in found}
    assert named == {
        "colour",
        "dreamship.base_url",
        "dreamship.calls_per_minut",
        "dreamship.calls_per_minute",
        "dreamship.timeout_seconds",
        "dreamship.api_keys",
        "webhook.listen",
        "webhook.path",
        "webhook.max_body_bytes",
        "mirror.path",
        "catalog.items",
        "catalog.categories",
        "availability.sellable",
        "reconcile.every",
        "reconcile.settle",
        "reconcile.removal_limit_percent",
        "admin.listen",
        "notify.url",
        "notify.command",
        "log.level",
    }
    assert len(found) == len(named)
    assert "dreamship.calls_per_minut: there is no such key; is it dreamship.calls_per_minute?" in (
        found
    )
    assert "hush" not in str(found)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        pytest.param(b"[dreamship\n", "line 1", id="no TOML"),
        pytest.param(b"a = '\xff'", "UTF-8", id="no UTF-8"),
        pytest.param(b"dreamship = 1", "takes a section", id="no section"),
        pytest.param(b'[notify]\ncommand = ["\\u0000"]', "with a NUL", id="no command"),
        pytest.param(b"a = " + b"[" * 20_000, "no TOML", id="no end"),
        pytest.param(b"a = " + b"9" * 5000, "no TOML", id="no number"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, content: bytes, part: str) -> None:
    """Line, byte or key: the place of the fault is in the message."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=part):
        load(path, {})


def test_the_same_address_twice(tmp_path: Path) -> None:
    """Two listeners cannot share a port, but may both ask for a free one."""
    both = '[webhook]\nlisten = "127.0.0.1:{0}"\n[admin]\nlisten = "127.0.0.1:{0}"'
    assert "admin.listen" in faults(tmp_path, both.format(9000))[0]
    loaded(tmp_path, both.format(0))


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    """The same file means the same wherever a command is run."""
    assert loaded(tmp_path, '[mirror]\npath = "a.db"').mirror.path == tmp_path / "a.db"


def test_where_keys_come_from(tmp_path: Path) -> None:
    """Environment, credential, file, configuration: the first that is set."""
    (tmp_path / "file").write_text("# ours\nfrom-file\n\n second \n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "dreamship-api-keys").write_text("from-credential\n")
    text = '[dreamship]\napi_keys = ["from-config"]\n'
    with_file = text + 'api_key_file = "file"\n'
    credential = {"CREDENTIALS_DIRECTORY": str(credentials)}
    everything = {**credential, "SYNCD_DREAMSHIP_API_KEYS": "from-env, other,"}

    def keys(text: str, environ: dict[str, str]) -> list[str]:
        return [key.reveal() for key in loaded(tmp_path, text, environ).keys]

    assert keys(with_file, everything) == ["from-env", "other"]
    assert keys(with_file, credential) == ["from-credential"]
    assert keys(with_file, {"SYNCD_DREAMSHIP_API_KEYS": " , "}) == ["from-file", "second"]
    assert keys(text, {}) == ["from-config"]
    assert keys("", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == []


def test_without_a_key_nothing_can_be_served(tmp_path: Path) -> None:
    """The fault names every way to give one."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, "").require_keys()
    for way in ("$SYNCD_DREAMSHIP_API_KEYS", "credential", "api_key_file", "api_keys"):
        assert way in caught.value.hint


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_a_key_file_that_holds_no_key_is_a_fault(tmp_path: Path, content: str | None) -> None:
    """A file that was named and is missing or empty is a mistake, not a choice."""
    if content is not None:
        (tmp_path / "keys").write_text(content)
    found = faults(tmp_path, '[dreamship]\napi_key_file = "keys"')
    assert found[0].startswith("dreamship.api_key_file:")


def test_the_order_in_which_a_file_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--config, $SYNCD_CONFIG, ./config.toml, /etc/syncd/config.toml."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"config\.toml"):
        find(None, {})
    (tmp_path / "config.toml").write_text("")
    assert find(None, {}) == Path("config.toml")
    assert find(None, {"SYNCD_CONFIG": "/e"}) == Path("/e")
    assert find("/x", {"SYNCD_CONFIG": "/e"}) == Path("/x")
    with pytest.raises(ConfigurationError, match="/x"):
        load(Path("/x"), {})


# --- values --------------------------------------------------------------------------------------


@given(st.integers(0, 3650 * 86_400))
def test_durations_come_back_as_they_were(seconds: int) -> None:
    """Written and read again it is the same time."""
    duration = timedelta(seconds=seconds)
    assert parse_duration(duration_text(duration)) == duration


@given(st.text() | st.from_regex(r"[0-9]+[smhdw]", fullmatch=True))
def test_no_text_makes_values_raise_anything_but_their_fault(text: str) -> None:
    """ValueError, which names the key; nothing else."""
    for parse in (parse_duration, parse_address):
        try:
            parse(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "text", ["127.0.0.1:0", "localhost:65535", "[::1]:8787", "unix:/run/x.sock", "0.0.0.0:80"]
)
def test_addresses_come_back_as_they_were(text: str) -> None:
    """Every form of the contract."""
    assert parse_address(text).text == text


@pytest.mark.parametrize(
    "text", ["", ":80", "host", "host:", "host:65536", "::1:80", "unix:x", "a b:1", "host:-1"]
)
def test_what_is_no_address(text: str) -> None:
    """Each says what to write instead."""
    with pytest.raises(ValueError, match=r"host:port|absolute"):
        parse_address(text)


# The mark keeps it from being, by chance, the name of a key.
key_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8).map(
    "q~7".__add__
)


@given(key=key_text)
def test_a_secret_shows_itself_to_nobody(key: str) -> None:
    """Not as text, not formatted, not in what is in force, not written anywhere."""
    secret = Secret(key)
    config = Config(keys=(secret,))
    config = msgspec.structs.replace(
        config, dreamship=msgspec.structs.replace(config.dreamship, api_keys=(secret,))
    )
    shown = [str(secret), repr(secret), f"{secret:>20}", repr(config), to_toml(config)]
    shown.append(str(in_force(config)))
    assert not any(key in text for text in shown)
    for write in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            write(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(config)


def test_what_is_in_force_can_be_read_again(tmp_path: Path) -> None:
    """check-config prints a configuration, not a report about one."""
    config = loaded(
        tmp_path,
        """
        [admin]
        listen = ""
        [notify]
        url = "https://user:token@hooks.example.com:8443/T000/secret?x=1"
        command = ["say", "\\"it\\" \\\\"]
        [reconcile]
        every = "90s"
        """,
    )
    text = to_toml(config)
    assert "token" not in text
    assert "secret" not in text
    assert "https://hooks.example.com:8443/********" in text
    again: dict[str, Any] = tomllib.loads(text)
    assert again == in_force(config)
    assert loaded(tmp_path, text).reconcile.every == timedelta(seconds=90)


def test_a_secret_never_appears_in_a_fault(tmp_path: Path) -> None:
    """Faults of key values say what is wrong without repeating them."""
    texts = [
        '[dreamship]\napi_keys = ["hush hush"]',
        '[dreamship]\napi_keys = [["hush"]]',
        '[dreamship]\napi_keys = "hush',
        '[notify]\nurl = "ftp://hush"',
    ]
    for text in texts:
        assert "hush" not in str(faults(tmp_path, text))
    assert "hush" not in str(faults(tmp_path, "", {"SYNCD_DREAMSHIP_API_KEYS": "hush\x01"}))
