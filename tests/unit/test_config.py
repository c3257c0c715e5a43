"""One frozen configuration, or all its errors at once; neither contains a secret."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from documents import ROOT
from hypothesis import given
from hypothesis import strategies as st

from syncd.config import SECTIONS, Config, Secret, find, in_force, load, search, to_toml
from syncd.config.settings import declared
from syncd.config.types import duration_text, parse_address, parse_duration
from syncd.errors import ConfigurationError

EXAMPLE = ROOT / "config.example.toml"


def loaded(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(path, environ or {})


def errors_of(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text, environ)
    return caught.value.errors


def test_the_example_holds_the_defaults() -> None:
    """config.example.toml names each default as it is."""
    assert load(EXAMPLE, {}) == Config()


def test_the_example_documents_every_key_and_no_other() -> None:
    """A key must be documented to exist."""
    document = tomllib.loads(EXAMPLE.read_text())
    documented = {(section, key) for section, values in document.items() for key in values}
    fields = {
        (section, field) for section, kind in SECTIONS.items() for field in kind.__struct_fields__
    }
    assert documented == fields


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    """Only an api key is required."""
    assert loaded(tmp_path, "") == Config()


def test_every_error_is_reported_at_once(tmp_path: Path) -> None:
    """A user corrects all errors in one round."""
    found = errors_of(
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
    named = {error.split(":")[0] for error in found}
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


def test_a_key_in_another_section_leads_to_its_own(tmp_path: Path) -> None:
    """And a key before the first section."""
    found = errors_of(tmp_path, 'settle = "1m"\n[mirror]\nevery = "1h"\nlisten = ""')
    assert found == [
        "mirror.every: there is no such key; is it reconcile.every?",
        "mirror.listen: there is no such key; is it webhook.listen or admin.listen?",
        "settle: there is no such key; is it reconcile.settle?",
    ]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        pytest.param(b"[dreamship\n", "line 1", id="no TOML"),
        pytest.param(b"a = '\xff'", "UTF-8", id="no UTF-8"),
        pytest.param(b"dreamship = 1", "must be a section", id="no section"),
        pytest.param(b'[notify]\ncommand = ["\\u0000"]', "without NUL", id="no command"),
        pytest.param(b"a = " + b"[" * 20_000, "not TOML", id="no end"),
        pytest.param(b"a = " + b"9" * 5000, "not TOML", id="no number"),
    ],
)
def test_a_syntax_error_names_its_place(tmp_path: Path, content: bytes, part: str) -> None:
    """Line, byte or key."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=part):
        load(path, {})


def test_two_listeners_cannot_share_an_address(tmp_path: Path) -> None:
    """Both may use a free port."""
    both = '[webhook]\nlisten = "127.0.0.1:{0}"\n[admin]\nlisten = "127.0.0.1:{0}"'
    assert "admin.listen" in errors_of(tmp_path, both.format(9000))[0]
    loaded(tmp_path, both.format(0))


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    """A file means the same wherever a command is run."""
    assert loaded(tmp_path, '[mirror]\npath = "a.db"').mirror.path == tmp_path / "a.db"


def test_the_first_source_of_keys_wins(tmp_path: Path) -> None:
    """Environment, credential, file, configuration, in this order."""
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


def test_a_missing_key_is_an_error(tmp_path: Path) -> None:
    """The error names every way to give one."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, "").require_keys()
    for way in ("$SYNCD_DREAMSHIP_API_KEYS", "credential", "api_key_file", "api_keys"):
        assert way in caught.value.hint


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_a_missing_or_empty_key_file_is_an_error(tmp_path: Path, content: str | None) -> None:
    """A configured key file must be readable."""
    if content is not None:
        (tmp_path / "keys").write_text(content)
    found = errors_of(tmp_path, '[dreamship]\napi_key_file = "keys"')
    assert found[0].startswith("dreamship.api_key_file:")


def test_the_first_configuration_file_found_is_used(
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


def test_an_unreadable_folder_is_skipped_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next place is used; without one, the error names the unreadable place."""
    monkeypatch.chdir(tmp_path)
    stat = Path.stat

    def closed(path: Path, **how: bool) -> os.stat_result:
        if path.name == "config.toml" and not path.is_absolute():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", closed)
    monkeypatch.setattr("syncd.config.loading.SYSTEM_PATH", tmp_path / "system.toml")
    with pytest.raises(ConfigurationError, match=r"config\.toml cannot be accessed") as caught:
        find(None, {})
    assert "--config" in caught.value.hint
    (tmp_path / "system.toml").write_text("")
    found, skipped = search(None, {})
    assert found == tmp_path / "system.toml"
    assert skipped == [f"{tmp_path}/config.toml cannot be accessed: Permission denied"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("folder", "is a folder"),
        ("pipe", "is a pipe"),
        ("/dev/null", "is a device"),
        ("/dev/zero", "is a device"),
        ("endless", "is longer than"),
        ("~nobody/config.toml", "No such file"),
        ("/x" * 3000, "name too long"),
    ],
)
def test_a_pipe_or_device_is_refused_at_once(tmp_path: Path, kind: str, expected: str) -> None:
    """As configuration and as key file: no wait for a pipe, no endless read."""
    path = tmp_path / kind if kind.isalpha() else Path(kind)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigurationError, match=f"(?i){expected}"):
        load(path, {})
    if not kind.startswith("~"):
        text = f'[dreamship]\napi_key_file = "{path}"'
        assert expected.casefold() in errors_of(tmp_path, text)[0].casefold()


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    """Some editors write one."""
    (tmp_path / "c.toml").write_bytes(b'\xef\xbb\xbf[log]\nlevel = "debug"\n')
    assert load(tmp_path / "c.toml", {}).log.level == "debug"


def test_an_unknown_home_folder_is_an_error_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No HOME, no such user, or a relative path."""
    for home, path in (("", "~/a.db"), ("relative", "~/a.db"), ("/", "~no_such_user/a.db")):
        monkeypatch.setenv("HOME", home)
        assert errors_of(tmp_path, f'[mirror]\npath = "{path}"')[0].startswith(
            "mirror.path: starts"
        )
    monkeypatch.setenv("HOME", "/home/shop")
    assert str(loaded(tmp_path, '[mirror]\npath = "~/a.db"').mirror.path) == "/home/shop/a.db"


def test_a_folder_name_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    """A status document could not contain the path of the mirror."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    assert "mirror.path: has a name" in errors_of(folder, '[mirror]\npath = "a.db"')[0]


# --- keys ----------------------------------------------------------------------------------------

GOOD_KEY = "Hush_0123-abc/DEF+x.y~z=="


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'"{GOOD_KEY}"', "quotes"),
        (f"'{GOOD_KEY}'", "quotes"),
        (f"\u201c{GOOD_KEY}\u201d", "quotes"),
        (f"`{GOOD_KEY}`", "quotes"),
        (f"api_key={GOOD_KEY}", "name before it"),
        (f"export SYNCD_DREAMSHIP_API_KEYS={GOOD_KEY}", "name before it"),
        (f"export {GOOD_KEY}", "name before it"),
        (f"api_key = {GOOD_KEY}", "name before it"),
        (f"api_key: {GOOD_KEY}", "name before it"),
        (f"X-API-Key:{GOOD_KEY}", "name before it"),
        (f"Authorization: Bearer {GOOD_KEY}", "name before it"),
        (f"Bearer {GOOD_KEY}", "Bearer before it"),
        (f"bearer {GOOD_KEY}", "Bearer before it"),
        (f"{GOOD_KEY} # the shop's", "comment"),
        (f"{GOOD_KEY}\t; the shop's", "comment"),
        (f"\ufeff{GOOD_KEY}", "byte order mark"),
        (f"{GOOD_KEY}\u200b", "zero width space"),
        (f"{GOOD_KEY[:9]}\u00ad{GOOD_KEY[9:]}", "invisible"),
        (f"{GOOD_KEY[:9]}\u00a0{GOOD_KEY[9:]}", "U+00A0"),
        (f"{GOOD_KEY}\u00a0", "U+00A0"),
        (f"{GOOD_KEY}\u2028", "invisible"),
        (f"{GOOD_KEY[:9]}\u043e{GOOD_KEY[9:]}", "cyrillic"),
        (f"{GOOD_KEY}\x00", "U+0000"),
        (f"https://app.dreamship.com/{GOOD_KEY}", "address"),
        (f"{GOOD_KEY} {GOOD_KEY}", "one key a line"),
        (f"{GOOD_KEY};{GOOD_KEY}", "one key a line"),
        ("********", "placeholder"),
        ("xxxxxxxx", "placeholder"),
        ("your api key", "placeholder"),
        ("YOUR_API_KEY", "placeholder"),
        ("your-api-key-here", "placeholder"),
        ("<api key>", "placeholder"),
        ("${DREAMSHIP_API_KEY}", "placeholder"),
        ("$DREAMSHIP_API_KEY", "placeholder"),
        ("{{ dreamship_api_key }}", "placeholder"),
        ("changeme", "placeholder"),
        ("paste your key here", "placeholder"),
        ("ds_live_0123456789", "placeholder"),
        ("-----BEGIN PRIVATE KEY-----", "another kind"),
    ],
)
def test_a_malformed_key_is_named_by_line_or_number(
    tmp_path: Path, text: str, expected: str
) -> None:
    """The error says what is wrong, and never contains the key."""
    (tmp_path / "keys").write_text(f"# ours\n{text}\n", encoding="utf-8")
    found = errors_of(tmp_path, '[dreamship]\napi_key_file = "keys"')
    assert len(found) == 1
    assert found[0].startswith("dreamship.api_key_file: line 2 holds an api key that")
    in_variable = errors_of(tmp_path, "", {"SYNCD_DREAMSHIP_API_KEYS": f"a_good_one,{text}"})
    assert in_variable[0].startswith("$SYNCD_DREAMSHIP_API_KEYS: key 2 holds")
    written = msgspec.json.encode(text).decode()
    in_list = errors_of(tmp_path, f"[dreamship]\napi_keys = [{written}]")
    assert in_list[0].startswith("dreamship.api_keys: entry 1 holds")
    for error in (*found, *in_variable, *in_list):
        assert expected in error
        assert GOOD_KEY[:4] not in error


@pytest.mark.parametrize(
    "key",
    [GOOD_KEY, "k", "sk-live_0", "the_second_key", "a.b-c", "example0", "0x1", "key-3ax6xnjp29jd6"],
)
def test_a_key_may_have_any_printable_form(tmp_path: Path, key: str) -> None:
    """Spaces around a key and a Windows line end do not count."""
    (tmp_path / "keys").write_bytes(f"  {key}\t\r\n".encode())
    config = loaded(tmp_path, '[dreamship]\napi_key_file = "keys"')
    assert [one.reveal() for one in config.keys] == [key]


def test_commands_that_need_no_keys_read_no_source_of_keys(tmp_path: Path) -> None:
    """A user who may read the configuration need not be able to read the keys."""
    text = '[dreamship]\napi_key_file = "nowhere"\napi_keys = ["not a key"]\n'
    path = tmp_path / "config.toml"
    path.write_text(text)
    environ = {"CREDENTIALS_DIRECTORY": "/x" * 3000, "SYNCD_DREAMSHIP_API_KEYS": "not a key"}
    config = load(path, environ, with_keys=False)
    assert (config.keys, config.dreamship.api_keys) == ((), ())
    assert config.dreamship.api_key_file == tmp_path / "nowhere"


def test_an_unreadable_credentials_folder_is_an_error(tmp_path: Path) -> None:
    """It may contain keys; to continue with other keys would be a guess."""
    found = errors_of(tmp_path, "", {"CREDENTIALS_DIRECTORY": "/x" * 3000})
    assert found[0].startswith("credential dreamship-api-keys: cannot be read: ")
    assert loaded(tmp_path, "", {"CREDENTIALS_DIRECTORY": "nowhere"}).keys == ()


# --- values --------------------------------------------------------------------------------------


@given(st.integers(0, 3650 * 86_400))
def test_durations_survive_a_round_trip(seconds: int) -> None:
    """A duration that is written and read again is equal."""
    duration = timedelta(seconds=seconds)
    assert parse_duration(duration_text(duration)) == duration


@given(st.text() | st.from_regex(r"[0-9]+[smhdw]", fullmatch=True))
def test_parsing_any_text_raises_value_error_only(text: str) -> None:
    """The loader adds the key to the message."""
    for parse in (parse_duration, parse_address):
        try:
            parse(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "text", ["127.0.0.1:0", "localhost:65535", "[::1]:8787", "unix:/run/x.sock", "0.0.0.0:80"]
)
def test_addresses_survive_a_round_trip(text: str) -> None:
    """Every form that the reference lists."""
    assert parse_address(text).text == text


@pytest.mark.parametrize(
    "text", ["", ":80", "host", "host:", "host:65536", "::1:80", "unix:x", "a b:1", "host:-1"]
)
def test_the_error_of_an_invalid_address_names_the_valid_forms(text: str) -> None:
    """In the text of the error."""
    with pytest.raises(ValueError, match=r"host:port|absolute"):
        parse_address(text)


# The mark ensures that the text is not the name of a key by chance.
key_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8).map(
    "q~7".__add__
)


@given(key=key_text)
def test_a_secret_is_masked_in_every_form(key: str) -> None:
    """As text, formatted, pickled, copied, and in the configuration that is printed."""
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


def test_the_printed_configuration_can_be_loaded_again(tmp_path: Path) -> None:
    """`check-config` prints valid TOML."""
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


@pytest.mark.parametrize(
    "value", ["'hush'", "['hush']", "[['hush']]", "{ hush = 1 }", "-987654321", "1979-05-27"]
)
def test_no_error_of_any_key_repeats_a_value(tmp_path: Path, value: str) -> None:
    """A value in the wrong place may be an api key."""
    path = tmp_path / "config.toml"
    for key in (f"{name}.{key}" for name, section in SECTIONS.items() for key in declared(section)):
        path.write_text(f"{key} = {value}")
        errors: list[str] = []
        try:
            load(path, {})
        except ConfigurationError as error:
            errors = error.errors
        assert all(one.startswith(f"{key}: ") for one in errors)
        assert not re.search("hush|987654321|1979", str(errors))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dreamship.calls_per_minute", "0", "must be a whole number from 1 to 6000"),
        (
            "dreamship.calls_per_minute",
            "45.0",
            "must be a whole number from 1 to 6000, not a number with a fraction",
        ),
        ("dreamship.calls_per_minute", "'45'", "must be a whole number from 1 to 6000, not text"),
        ("dreamship.timeout_seconds", "nan", "must be a number above 0, at most 300"),
        (
            "dreamship.timeout_seconds",
            "true",
            "must be a number above 0, at most 300, not true or false",
        ),
        ("catalog.items", "7", "must be a list of different ids, not a number"),
        ("catalog.items", "[7, 8, 7]", "names 7 more than once"),
        ("catalog.items", "[7, 0]", "entry 2 must be an id, a whole number above 0"),
        ("availability.sellable", "[]", "is empty; name at least one value"),
        ("reconcile.settle", "'2h'", "must be from 0s to 1h"),
        ("reconcile.every", "6", "must be a duration from 1s to 3650d, not a number"),
        ("mirror.path", "[]", "must be a path, not a list"),
        ("webhook.listen", "''", "must be an address: host:port, [v6]:port or unix:/path"),
        ("log.level", "'loud'", "must be one of debug, info, warning, error"),
    ],
)
def test_an_error_says_which_values_a_key_takes(
    tmp_path: Path, key: str, value: str, message: str
) -> None:
    """The message follows from the declaration of the key."""
    assert errors_of(tmp_path, f"{key} = {value}") == [f"{key}: {message}"]


def test_a_secret_never_appears_in_an_error(tmp_path: Path) -> None:
    """An error of an api key gives a reason without repeating the key."""
    texts = [
        '[dreamship]\napi_keys = ["hush hush"]',
        '[dreamship]\napi_keys = [["hush"]]',
        '[dreamship]\napi_keys = "hush',
        '[notify]\nurl = "ftp://hush"',
    ]
    for text in texts:
        assert "hush" not in str(errors_of(tmp_path, text))
    assert "hush" not in str(errors_of(tmp_path, "", {"SYNCD_DREAMSHIP_API_KEYS": "hush\x01"}))
