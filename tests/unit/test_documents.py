"""Documents and program agree, and documents are complete."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest
from documents import (
    ARCHITECTURE,
    CONTRIBUTING,
    DOCUMENTS,
    README,
    ROOT,
    SHOPS,
    anchors,
    blocks,
    code_in,
    code_of,
    headings,
    links,
    rows,
    section,
    spans_in,
    spelled,
    text,
)
from msgspec import Struct, structs
from systemd.machine import SUITE

from syncd import __version__
from syncd.cli import COMMANDS, EXIT_CODES, INTERRUPTED, cli
from syncd.config import SECTIONS, TABLES, Config, Push, load
from syncd.config.settings import declared
from syncd.config.validators import describe
from syncd.core.model import OUTCOMES
from syncd.core.status_document import StatusDocument

LONGEST_README = 300


def code() -> list[str]:
    """Return everything that is set as code in the documents for users."""
    return [
        one
        for document in DOCUMENTS
        for one in (*(block.text for block in code_in(text(document))), *spans_in(text(document)))
    ]


# --- logs ----------------------------------------------------------------------------------------


def logged() -> Iterator[str]:
    """Give what the code logs: the first text in each call that writes a line."""
    for path in (ROOT / "syncd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            is_ours = isinstance(node.func.value, ast.Name) and node.func.value.id == "log"
            is_complaint = ast.unparse(node.func.value).endswith("_complaints")
            if is_ours or is_complaint or node.func.attr == "_log_refusal":
                # `log.log` has the level before the event.
                first = 1 if node.func.attr == "log" else 0
                yield from (
                    one.value
                    for one in node.args[first : first + 1]
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )
    # Their texts are built in the code.
    yield from ("health changed", "webhooks changed")


def test_every_log_event_is_documented_and_no_other() -> None:
    """People grep for events and alert on them."""
    documented = [spelled(row[0]) for row in rows(section("Logs"), "event")]
    assert sorted(documented) == sorted(set(logged()))


# --- commands ------------------------------------------------------------------------------------


def command(name: str) -> click.Command:
    assert isinstance(cli, click.Group)
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def test_every_command_is_documented_and_no_other() -> None:
    """The table of commands is the list of commands, in its order."""
    named = [spelled(row[0]).split()[0] for row in rows(section("Commands"), "command")]
    assert named == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented_and_no_other(name: str) -> None:
    """A row names each option of its command."""
    row = next(r for r in rows(section("Commands"), "command") if name in spelled(r[0]).split())
    taken = {
        option
        for parameter in command(name).params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    named = {span.split()[0] for span in spans_in(row[1])}
    # `-c` is documented once, above the table, for all commands.
    assert named == taken - {"-c"}
    assert "(`-c`)" in section("Commands")


def test_every_documented_command_exists() -> None:
    """A reader can type every command of the documents."""
    typed = re.findall(r"(?:^|[\s/])syncd ([a-z][\w-]*)", "\n".join(code()), re.MULTILINE)
    assert set(typed) <= set(COMMANDS)
    assert {"demo", "reconcile-now", "check-config", "status"} <= set(typed)


def test_the_documented_exit_codes_are_those_of_the_program() -> None:
    """The commands name only these."""
    codes = {int(row[0]) for row in rows(section("Exit codes"), "code")}
    assert codes == {0, INTERRUPTED, *(code for _, code in EXIT_CODES)}
    for row in rows(section("Commands"), "command"):
        assert {int(number) for number in re.findall(r"\d+", row[3])} <= codes, row[0]


# --- configuration -------------------------------------------------------------------------------


def test_every_key_is_documented_with_its_default(tmp_path: Path) -> None:
    """The table has the keys, the defaults and the constraints of their declarations."""
    table = {spelled(row[0]): row for row in rows(section("Configuration"), "key")}
    assert {key: row[2] for key, row in table.items()} == {
        f"{name}.{key}": describe(kind)
        for name, keys in SECTIONS.items()
        for key, kind in declared(keys).items()
    }
    path = tmp_path / "config.toml"
    path.write_text("\n".join(f"{key} = {spelled(row[1])}" for key, row in table.items()))
    assert load(path, {}) == Config()


def test_every_key_of_a_push_is_documented_with_its_default(tmp_path: Path) -> None:
    """The same for the keys of an array of tables; the example has them too, as comments."""
    table = {spelled(row[0]): row for row in rows(section("Pushes"), "push key")}
    assert {key: row[2] for key, row in table.items()} == {
        f"push.{key}": describe(kind) for key, kind in declared(TABLES["push"]).items()
    }
    path = tmp_path / "config.toml"
    lines = [f"{key.removeprefix('push.')} = {spelled(row[1])}" for key, row in table.items()]
    # Only the name and the receiver have no default that can be used.
    lines = [line for line in lines if not line.startswith(("name", "command"))]
    path.write_text("\n".join(["[[push]]", "name = 'x'", "command = ['y']", *lines]))
    assert load(path, {}).push == (Push(name="x", command=("y",)),)
    example = text("config.example.toml").partition("# [[push]]\n")[2].partition("\n\n")[0]
    assert re.findall(r"^# (\w+) =", example, re.MULTILINE) == [key[5:] for key in table]


def test_every_key_has_an_effect() -> None:
    """Code outside `syncd.config` reads each key."""
    source = "\n".join(
        path.read_text()
        for path in (ROOT / "syncd").rglob("*.py")
        if path.parent.name not in {"config", "demo"}
    )
    # How the keys reach the readers is decided in the configuration itself.
    unread = {
        f"{name}.{key}"
        for name, kind in (SECTIONS | TABLES).items()
        for key in kind.__struct_fields__
        if f"{name}.{key}" not in source
        and not key.startswith(("api_key", "secret", "url_file", "standby"))
    }
    assert not unread


# --- answers and the status document -------------------------------------------------------------


def test_every_answer_of_the_webhook_is_documented() -> None:
    """Each outcome and each status code, including those of the server below our code."""
    cells = [row[0] for row in rows(section("HTTP answers of the webhook"), "answer")]
    assert [spelled(cell[4:]) for cell in cells if cell.startswith("200")] == list(OUTCOMES)
    source = (ROOT / "syncd" / "webhook" / "endpoint.py").read_text()
    answered = {int(number) for number in re.findall(r"_answer\(send, (\d+)", source)}
    assert {int(cell[:3]) for cell in cells} == answered | {404, 408}


def keys_of(record: type[Struct], prefix: str = "") -> Iterator[str]:
    for field in structs.fields(record):
        kind = (get_args(field.type) or (field.type,))[0]
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from keys_of(kind, f"{prefix}{field.encode_name}.")
        else:
            yield f"{prefix}{field.encode_name}"


def test_the_status_document_is_documented() -> None:
    """The reference lists every key, in its order."""
    listed = [spelled(row[0]) for row in rows(section("The status document"), "key")]
    assert listed == list(keys_of(StatusDocument))


def test_the_demo_command_is_one_line() -> None:
    """It installs syncd and runs the main job."""
    found = re.findall(r"^<!-- demo command -->\n```sh\n(.*)\n```$", text(README), re.MULTILINE)
    assert len(found) == 1
    assert found[0].startswith("python3 -m venv .venv && ")
    assert found[0].endswith("syncd demo")


def test_the_readme_has_at_most_300_lines() -> None:
    """A newcomer reads all of it."""
    assert len(text(README).splitlines()) <= LONGEST_README


def test_the_readme_has_the_fail_safe_statement() -> None:
    """Letter by letter the statement that the tests run."""
    assert code_of(README, "sql") == code_of(SHOPS, "sql")[:1]


def test_the_readme_installs_like_the_full_instructions() -> None:
    """The same commands, which test_install follows."""
    assert blocks("Install") == blocks("Installing it")


def test_the_supported_versions_are_tested() -> None:
    """The first Debian is the release that test_install boots; the first Python is the minimum."""
    tested = {row[0]: row[1].split(", ") for row in rows(section("Supported versions"), "software")}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tested["Debian"] == [f"12 ({SUITE})", "13 (trixie)"]
    assert "debootstrap --variant=minbase --include=ca-certificates trixie" in text(".ci/trixie")
    assert f">={tested['Python'][0]}" == declared


def test_ci_runs_the_documented_parts() -> None:
    """CI runs the parts of the table in their order, and the table has every part."""
    documented = [spelled(row[0]) for row in rows(text(CONTRIBUTING), "part")]
    (default,) = re.findall(r"\|\| set -- (.*)$", text(".ci/run"), re.MULTILINE)
    assert documented == [f".ci/{part}" for part in default.split()]
    found = {f".ci/{path.name}" for path in (ROOT / ".ci").iterdir() if path.is_file()}
    assert found == {*documented, ".ci/run"}


def test_every_document_is_known() -> None:
    """`documents.py` lists every Markdown file, so that it is tested."""
    found = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.md")
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    }
    assert found == {*DOCUMENTS}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_has_a_target(document: str) -> None:
    """Each relative link has its file, and each anchor its heading."""
    broken = []
    for link in links(document):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", path):
            continue
        target = (ROOT / document).parent / path if path else ROOT / document
        inside = target.resolve()
        is_there = inside.exists() and inside.is_relative_to(ROOT)
        if not is_there or (anchor and anchor not in anchors(str(inside.relative_to(ROOT)))):
            broken.append(link)
    assert broken == []


def test_the_link_test_finds_links() -> None:
    """Within a document and between documents."""
    found = [link for document in DOCUMENTS for link in links(document)]
    assert sum(link.startswith("#") for link in found) > 10
    assert sum(not link.startswith(("#", "http")) for link in found) > 3


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_named_in_a_document_exist(document: str) -> None:
    """Files to install and to run, relative to the root of the repository."""
    source = text(document).replace("/etc/systemd/system/", "/etc/")
    named = re.findall(r"(?<![\w/.])(?:systemd|tests)/[\w@/]+(?:\.\w+)+", source)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_files_named_in_the_architecture_exist() -> None:
    """A reader follows it file by file."""
    named = [one for one in spans_in(text(ARCHITECTURE)) if one.endswith(".py")]
    assert len(named) > 20
    missing = [one for one in named if not any((ROOT / at / one).exists() for at in ("syncd", ""))]
    assert missing == []


def test_documents_cited_in_the_code_exist() -> None:
    """Each cited document exists and has the cited section."""
    cited = re.compile(r"([\w./-]*\w\.md)(?:,\s+(?:#\s+)?\"([^\"]+)\")?")
    wrong, found = [], 0
    for path in (*(ROOT / "syncd").rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        if path.name in {"documents.py", "test_documents.py"}:
            continue
        for name, title in cited.findall(path.read_text()):
            found += 1
            is_there = name in DOCUMENTS
            titles = headings(name) if is_there and title else []
            if not is_there or (title and " ".join(title.split()) not in titles):
                wrong.append(f"{path.relative_to(ROOT)}: {name} {title}")
    assert wrong == []
    assert found > 8


def test_the_documented_folders_are_the_layers() -> None:
    """Every folder is named, in the order of the layers."""
    named = [spelled(row[0]).replace("/", ".") for row in rows(section("The folders"), "folder")]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    inside = [name for layer in layers for name in layer.split(" | ")]
    folders = [name for name in inside if (ROOT / name.replace(".", "/")).is_dir()]
    assert [name for name in named if name != "syncd"] == folders


def test_the_changelog_begins_with_this_version() -> None:
    """A release needs its entry first."""
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__
