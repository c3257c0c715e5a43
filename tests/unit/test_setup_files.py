"""The files of setup: keys without extra text, a complete configuration, whole files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.config import Secret
from syncd.errors import ConfigurationError
from syncd.setup import files, key_files, toml_edit
from syncd.setup.files import NewFile
from syncd.setup.pasted_keys import find_keys
from syncd.setup.toml_edit import edit

KEY = "ds_live_abc123XYZ4567"
OTHER = "ds_live_def456UVW8901"
EXAMPLE = (ROOT / "config.example.toml").read_text()


# --- pasted keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "removed"),
    [
        (KEY, set()),
        (f"  {KEY}\t\r\n", {"spaces"}),
        (f'"{KEY}"', {"quotes"}),
        (f"“{KEY}”,", {"quotes", "commas"}),
        (f"\ufeff{KEY}\r\n", {"a byte order mark"}),
        (f"\u200b{KEY}\u00a0", {"invisible characters", "spaces"}),
        (f"\x1b[200~{KEY}\x1b[201~", set()),
        (f"Bearer {KEY}", {"a word such as Bearer"}),
        (f"Bearer\n{KEY}\n", {"a word such as Bearer"}),
        (f"api_key={KEY},", {"a name before the key", "commas"}),
        (f"API key:\n\n{KEY}\n", {"a name before the key"}),
        (f"{KEY}  # the shop's", {"a comment"}),
        (f"# the shop's\n{KEY}", {"a comment"}),
        (f"- {KEY}", {"a list mark"}),
        (f"Production\n{KEY}", {"other text"}),
        (f"Your api key is {KEY}", {"other text"}),
        (f"curl -H 'Authorization: Bearer {KEY}' https://api.dreamship.com/v1", {"other text"}),
        (f'{{"api_key": "{KEY}"}}', {"brackets", "a name before the key", "spaces", "quotes"}),
    ],
)
def test_text_around_a_pasted_key_is_removed(text: str, removed: set[str]) -> None:
    """The key is whole, and the removed text is described without repeating it."""
    found = find_keys(text)
    assert found.keys == (Secret(KEY),)
    assert removed <= {*found.removed}
    assert "ds_" not in "".join(found.removed)


@pytest.mark.parametrize("text", [f"{KEY}\n{OTHER}\n", f"'{KEY},{OTHER}'", f'["{KEY}", "{OTHER}"]'])
def test_several_keys_keep_their_order(text: str) -> None:
    """As during a rotation."""
    assert find_keys(text).keys == (Secret(KEY), Secret(OTHER))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no api key"),
        ("Bearer", "no api key"),
        ("your-api-key", "placeholder"),
        ("https://app.dreamship.com", "an address"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a certificate"),
        ("two words", "a space in it"),
    ],
)
def test_text_without_a_key_has_a_reason(text: str, reason: str) -> None:
    """It does not repeat the text."""
    with pytest.raises(ValueError, match=reason) as caught:
        find_keys(text)
    assert not text or text not in str(caught.value)


@given(st.text(max_size=200))
@example("=" * 50)
@example("[" * 50 + "\n:")
def test_any_pasted_text_is_a_key_or_a_reason(text: str) -> None:
    """Nothing else is raised, and a found key can be stored on a line of its own."""
    try:
        keys = find_keys(text).keys
    except ValueError:
        return
    assert keys
    assert all(len(key.reveal().splitlines()) == 1 for key in keys)


# --- the configuration ---------------------------------------------------------------------------

WANTED: dict[str, Any] = {
    "dreamship.api_key_file": "api-keys",
    "availability.sellable": ["in_stock", "low_stock"],
    "webhook.public_url": "https://hooks.example.com/webhooks/dreamship",
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        EXAMPLE,
        EXAMPLE.replace("\n", "\r\n"),
        "\ufeff# with a mark\n[log]\nlevel = 'debug' # it's late\n",
        "webhook.listen = '127.0.0.1:1'   # dotted\nlog.level = 'info'\n",
        "webhook = { listen = 'unix:/a' }  # inline\n[dreamship]\n#end\n",
        "[webhook]\nlisten='a:1'\n[log]\n[dreamship]   # far away\napi_key_file = ''# tight\n",
        "[availability]\nsellable = [ # several\n  'old', # the old one\n  'in_stock', # sold\n]\n",
        "[availability]\nsellable = [\n  'in_stock',\n  'low_stock'  # no comma\n  , # odd\n]\n#x",
        "[notify]\ncommand = ['a # b', \"c'# d\"] # e 'f' \"g\n",
        '[notify]\nurl = """https://x/#a"""  # "quoted"\n',
    ],
)
def test_an_edited_file_keeps_everything_else(text: str) -> None:
    """The other values, all comments, the mark and the line ends; a second edit changes nothing."""
    after, changes = edit(text, WANTED)
    plain = text.removeprefix("\ufeff")
    before = tomllib.loads(plain)
    values = tomllib.loads(after.removeprefix("\ufeff"))
    for name, value in WANTED.items():
        section, _, key = name.partition(".")
        assert values[section][key] == value
        before.setdefault(section, {})[key] = value
    assert values == before
    assert {change.key for change in changes} <= {*WANTED}
    assert after.startswith("\ufeff") == text.startswith("\ufeff")
    for line in plain.splitlines():
        if line.lstrip().startswith("#"):
            assert line in after
    for comment in ("# the old one", "# sold", "# no comma", "# it's late", "# tight", "# inline"):
        assert (comment in text) == (comment in after), after
    assert edit(after, WANTED) == (after, [])


def test_the_comments_of_the_example_stay_in_their_lines() -> None:
    """Only the three values differ."""
    after, _ = edit(EXAMPLE, WANTED)
    differing = [
        (old, new)
        for old, new in zip(EXAMPLE.splitlines(), after.splitlines(), strict=True)
        if old != new
    ]
    assert len(differing) == 3
    for old, new in differing:
        assert old.partition("#")[2] == new.partition("#")[2]


def test_a_lossy_edit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the library fails, the file stays as it is, and the error names the key."""
    for lossy in ("[webhook]\npublic_url = 'https://x'\n", "[webhook\n", "# kept\n[webhook]\n"):
        monkeypatch.setattr(toml_edit, "_edited", lambda *_, lossy=lossy: lossy)
        with pytest.raises(ConfigurationError, match=r"webhook\.public_url cannot be set"):
            edit("# kept\n[log]\nlevel = 'info'\n", {"webhook.public_url": "https://x"})


# --- the file with the keys ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys", "after"),
    [
        ("", [KEY], f"{key_files._HEAD}{KEY}\n"),
        (f"# mine\n{KEY}\n\n# end\n", [KEY], f"# mine\n{KEY}\n\n# end\n"),
        (f"# mine\n{KEY}\n", [OTHER, KEY], f"# mine\n{OTHER}\n{KEY}\n"),
        (f"{KEY}\n# old\n{OTHER}\n", [OTHER, KEY], f"{OTHER}\n# old\n{KEY}\n"),
        (f"# mine\nBearer {KEY}", [KEY], f"# mine\n{KEY}\n"),
        (f"{KEY}  # main\n", [OTHER, KEY], f"# main\n{OTHER}\n{KEY}\n"),
        ("# none yet\n", [KEY], f"# none yet\n{KEY}\n"),
    ],
)
def test_the_key_file_keeps_its_comments(
    tmp_path: Path, text: str, keys: list[str], after: str
) -> None:
    """The keys get the new order; the text around them is gone."""
    path = tmp_path / "api-keys"
    path.write_text(text)
    assert key_files.next_text(key_files.read(path), [Secret(key) for key in keys]) == after


def test_a_faulty_line_of_the_key_file_is_named_without_it(tmp_path: Path) -> None:
    """By its number."""
    (tmp_path / "api-keys").write_text(f"{KEY}\nhttps://secret.example.com\n")
    with pytest.raises(ConfigurationError, match="line 2 holds an api key that is an address"):
        key_files.read(tmp_path / "api-keys")


# --- writing -------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def new(path: Path, content: bytes, **rights: int) -> NewFile:
    before = path.read_bytes() if path.exists() else None
    return NewFile(path, content, before, **rights)


def test_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    """A link stays a link; an existing file keeps its mode, a new one gets its own."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o604)
    link = tmp_path / "link"
    link.symlink_to(target)
    files.write_all([new(link, b"new"), new(tmp_path / "keys", b"key", mode=0o600)])
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o604
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["keys", "link", "target"]


def test_a_change_by_another_program_is_kept(tmp_path: Path) -> None:
    """Nothing is written then, not even the other file."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"old")
    wanted = [new(tmp_path / "keys", b"key"), new(path, b"new")]
    path.write_bytes(b"somebody's")
    with pytest.raises(ConfigurationError, match="was changed by another program"):
        files.write_all(wanted)
    assert path.read_bytes() == b"somebody's"
    assert names(tmp_path) == ["config.toml"]


def test_a_failure_leaves_no_part(tmp_path: Path) -> None:
    """The second file cannot be written; the first is not there either."""
    with pytest.raises(ConfigurationError, match="cannot be written"):
        files.write_all([new(tmp_path / "a", b"a"), new(tmp_path / "no" / "b", b"b")])
    assert names(tmp_path) == []


def test_only_files_that_differ_are_written(tmp_path: Path) -> None:
    """A wrong mode is a difference."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"same")
    path.chmod(0o640)
    assert files.differing([new(path, b"same", mode=0o640)]) == []
    assert len(files.differing([new(path, b"same", mode=0o600)])) == 1
    assert len(files.differing([new(path, b"other")])) == 1
