"""`syncd setup`: from nothing to a configuration, on a terminal and in a script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import KEY, Daemon, Site
from documents import ROOT
from msgspec import json
from terminals import Terminal, on_terminal

URL = "https://hooks.example.com/webhooks/dreamship"
AS_USER = ROOT / "tests" / "as_user.py"
NEW_KEY = "ds_new_fedcba9876543210"
# A configuration as people write it: another order, comments everywhere, an inline table.
BY_HAND = """\
# the shop of Ada; ask her before you change this
notify = {{ command = ["/usr/local/bin/tell"], url = "" }}   # the pager

[control]
socket = "{folder}/control.sock"

[reconcile]
settle   =   "2s"      # Dreamship's cache
# every = "12h"

[availability]
sellable = [
    "in_stock",   # what everybody sells
    "low_stock",  # few are left
]

[dreamship]
calls_per_minute = 6000
base_url = "{base_url}"
# no key here: they are in the file

[mirror]
path = '{folder}/availability.db'
"""


def setup(
    site: Site, *arguments: str, stdin: str = "", environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command without a terminal."""
    return subprocess.run(
        site.command("setup", *arguments),
        cwd=site.folder,
        env=site.environ | (environ or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def made(site: Site) -> dict[str, Any]:
    """Return the configuration that is on disk."""
    return tomllib.loads(site.config.read_text())


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file with its content."""
    return {str(one): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.fixture
def fresh(site: Site) -> Site:
    """Give a folder with a configuration that names the simulated Dreamship and has no key."""
    site.config.write_text(
        BY_HAND.format(folder=site.folder, base_url=site.settings["dreamship"]["base_url"])
    )
    return site


@pytest.fixture
def asked(fresh: Site) -> Iterator[Terminal]:
    """Give the command on a terminal."""
    with on_terminal(fresh.command("setup"), cwd=fresh.folder, environ=fresh.environ) as terminal:
        yield terminal


# --- on a terminal -------------------------------------------------------------------------------


def test_a_person_answers_each_question(fresh: Site, asked: Terminal) -> None:
    """The key is never shown; a pasted key comes with dirt on several lines."""
    asked.read_until("Api key: ")
    assert not asked.has_echo()
    asked.type(f'Authorization:\n  "Bearer {KEY}",\n')
    asked.read_until("Removed around the key: ")
    assert "quotes" in asked.read_until("Dreamship accepts the key: 5 items.")
    asked.read_until("Values of availability in 5 items:")
    asked.answer("Which of them may be sold?", "1")
    asked.answer("https address", "http://hooks.example.com")
    asked.read_until("Error: this must begin with https://")
    asked.answer("https address", "hooks.example.com/")
    asked.answer("CSV file", "nowhere.csv")
    asked.read_until("Error: this cannot be used: it cannot be read: No such file")
    asked.answer("CSV file", "")
    asked.answer("Web server", "apache")
    asked.read_until("Error: this is none of nginx, caddy, none")
    asked.answer("Web server", "caddy")
    asked.read_until("hooks.example.com {")
    asked.read_until("https://app.dreamship.com/app/settings/api/")
    asked.read_until(f"Set the webhook URL to {URL}")
    asked.read_until("Start the daemon: ")
    assert asked.end() == 0
    assert asked.has_echo()
    assert KEY not in asked.shown
    values = made(fresh)
    assert values["webhook"] == {"public_url": URL}
    assert values["dreamship"]["api_key_file"] == "api-keys"
    assert len(values["availability"]["sellable"]) == 1
    assert fresh.syncd("check-config").returncode == 0


def test_a_wrong_key_is_asked_again(fresh: Site, asked: Terminal) -> None:
    """Twice; the reason says where the right one is."""
    before = snapshot(fresh.folder)
    for text, reason in (
        ("your-api-key", "is a placeholder"),
        (NEW_KEY, "Dreamship answered 401"),
        (NEW_KEY, "Dreamship answered 401"),
    ):
        asked.answer("Api key: ", text)
        assert NEW_KEY not in asked.read_until(reason)
    assert asked.end() == 4
    assert "https://app.dreamship.com/app/settings/api/" in asked.shown
    assert snapshot(fresh.folder) == before


QUESTIONS = ("Api key: ", "may be sold?", "https address", "CSV file", "Web server")


@pytest.mark.parametrize("end", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("number", range(len(QUESTIONS)), ids=QUESTIONS)
def test_an_interrupt_at_a_question_writes_nothing(
    fresh: Site, asked: Terminal, number: int, end: str
) -> None:
    """Exit code 130, the terminal shows typed text again, no file is new or changed."""
    before = snapshot(fresh.folder)
    answers = (KEY, "", "hooks.example.com", "", "")
    for question, answer in zip(QUESTIONS[:number], answers, strict=False):
        asked.answer(question, answer)
    asked.read_until(QUESTIONS[number])
    time.sleep(0.2)  # the prompt is shown before the terminal is read
    asked.type(end)
    assert asked.end() == 130
    assert "Interrupted: nothing is written." in asked.shown
    assert "Traceback" not in asked.shown
    assert asked.has_echo()
    assert snapshot(fresh.folder) == before


def test_a_second_run_keeps_all_answers(fresh: Site) -> None:
    """Enter at each question changes nothing, and says so."""
    assert setup(fresh, "--yes", "--key-file=-", f"--public-url={URL}", stdin=KEY).returncode == 0
    before = snapshot(fresh.folder)
    command = fresh.command("setup")
    with on_terminal(command, cwd=fresh.folder, environ=fresh.environ) as terminal:
        terminal.answer("Api key (Enter keeps the 1 configured): ", "")
        for question in QUESTIONS[1:]:
            terminal.answer(question, "")
        assert terminal.end() == 0
    assert terminal.shown.count("stays as it is.") == 2
    assert snapshot(fresh.folder) == before


@pytest.fixture
def served(open_site: Callable[..., AbstractContextManager[Site]]) -> Iterator[Daemon]:
    """Give a daemon that was set up, in a folder that others can enter, before any delivery."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with open_site(folder, items=2) as site:
            site.configure(dreamship={"api_keys": []}, admin={"listen": ""})
            url = "--public-url=http://127.0.0.1:9/webhooks/dreamship"
            done = setup(site, "--yes", "--key-file=-", url, stdin=KEY)
            assert done.returncode == 0, done.stderr
            daemon = site.serve()
            site.mirror.parent.chmod(0o750)
            yield daemon


def test_ctrl_c_ends_the_wait_for_the_first_delivery(served: Daemon) -> None:
    """The checks run during the wait; the last lines say what is set up and what is missing."""
    site = served.site
    command = site.command("setup", "--yes")
    with on_terminal(command, cwd=site.folder, environ=site.environ) as terminal:
        terminal.read_until("fail  a signed delivery reaches the daemon from outside")
        terminal.read_until("Waiting for the first delivery; 8 variants")
        terminal.type("\x03")
        assert terminal.end() == 130
    end = terminal.shown.partition("Everything is set up.")[2]
    assert "The first delivery is still missing:" in end
    assert "  - a signed delivery reaches the daemon from outside: check the name" in end
    assert KEY not in terminal.shown


def test_the_first_delivery_ends_the_wait(served: Daemon) -> None:
    """Exit code 0: only the way from outside is not right yet, which is a person's next step."""
    site = served.site
    command = site.command("setup", "--yes")
    with on_terminal(command, cwd=site.folder, environ=site.environ) as terminal:
        terminal.read_until("Waiting for the first delivery; Ctrl-C")
        event = site.catalogue.set_availability(min(site.catalogue.variants), "in_stock")
        served.deliver(event)
        terminal.read_until("The first delivery has arrived.")
        assert terminal.end() == 0, terminal.shown
    document = json.decode(setup(site, "--yes", "--json").stdout)
    assert document["first_delivery"] is True
    verdicts = {one["check"]: one["verdict"] for one in document["checks"]}
    assert verdicts["the shop can read the mirror"] == "pass"
    assert verdicts["a signed delivery reaches the daemon from outside"] == "fail"
    served.stop()


# --- in a script ---------------------------------------------------------------------------------


def test_yes_takes_the_defaults_and_json_names_the_changes(fresh: Site) -> None:
    """One document on stdout; the file changes only in the keys that are set."""
    before = fresh.config.read_text()
    done = setup(fresh, "--yes", "--json", "--key-file=-", stdin=f"api_key={KEY},\r\n")
    assert done.returncode == 0, done.stderr
    document = json.decode(done.stdout)
    assert document["changed"] == {"dreamship.api_key_file": "api-keys"}
    assert document["removed"] == ["a name before the key", "commas"]
    assert document["written"] == [str(fresh.folder / "api-keys"), str(fresh.config)]
    assert document["sellable"] == ["in_stock", "low_stock"]
    assert sum(document["values"].values()) == 20
    assert document["site"] is None
    assert document["start_command"].endswith(f"serve --config {fresh.config}")
    assert KEY not in done.stdout + done.stderr
    added = 'api_key_file = "api-keys"\n'
    after = fresh.config.read_text()
    assert after.count(added) == 1
    assert after.replace(added, "") == before
    keys = fresh.folder / "api-keys"
    assert keys.read_text().splitlines()[1:] == [KEY]
    assert keys.stat().st_mode & 0o777 == 0o600
    again = json.decode(setup(fresh, "--yes", "--json").stdout)
    assert (again["written"], again["changed"]) == ([], {})


def test_every_flag_answers_its_question(fresh: Site) -> None:
    """Without --yes and without a terminal; a URL with a path sets the path of the listener."""
    listings = fresh.folder / "skus.csv"
    listings.write_text("sku,variant_id\nA,1\n")
    user = "nobody"
    done = setup(
        fresh,
        *("--key-file=-", "--sellable=in_stock", "--sellable", "ready to ship"),
        *("--public-url=https://shop.example.com:8443/hook", f"--shop-user={user}"),
        *("--listings=skus.csv", "--proxy=nginx", "--no-wait"),
        stdin=KEY,
    )
    assert done.returncode == 0, done.stderr
    assert "None of these variants has the value ready to ship." in done.stdout
    assert "listen 8443 ssl;" in done.stdout
    assert "location = /hook {" in done.stdout
    assert f"As root: gpasswd --add {user} " in done.stdout
    values = made(fresh)
    assert values["catalog"] == {"listings": str(listings)}
    assert values["availability"] == {"sellable": ["in_stock", "ready to ship"]}
    assert values["webhook"] == {
        "public_url": "https://shop.example.com:8443/hook",
        "path": "/hook",
    }
    assert "# what everybody sells" in fresh.config.read_text()
    assert setup(fresh, "--yes", "--listings=none").returncode == 0
    assert made(fresh)["catalog"] == {"listings": ""}


def test_a_new_folder_gets_the_commented_example(
    fresh: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Mirror and socket are beside it, as with `init`; nothing is left if the key is refused."""
    folder = tmp_path_factory.mktemp("empty")
    command = [sys.executable, "-m", "syncd", "setup", "--yes", "--key-file=-", "-c", "new/c.toml"]
    proxy = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), "")
    done = subprocess.run(
        command,
        cwd=folder,
        env=fresh.environ | proxy | {"https_proxy": "http://127.0.0.1:9"},
        input=KEY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    first, second = done.stderr.splitlines()
    assert "could not be reached" in first
    assert second.endswith("the call went through the proxy of $https_proxy")
    assert list(folder.iterdir()) == []


def test_an_old_key_stays_behind_a_new_one(fresh: Site) -> None:
    """The new one reads, the old one still verifies; comments of the file stay."""
    keys = fresh.folder / "api-keys"
    keys.write_text(f"# of the shop\n{KEY}\n# the end\n")
    keys.chmod(0o644)
    fresh.api.keys = (KEY, NEW_KEY)
    done = setup(fresh, "--yes", environ={"SYNCD_DREAMSHIP_API_KEYS": NEW_KEY})
    assert done.returncode == 0, done.stderr
    assert keys.read_text() == f"# of the shop\n{NEW_KEY}\n{KEY}\n# the end\n"
    assert keys.stat().st_mode & 0o777 == 0o600
    assert NEW_KEY not in done.stdout + done.stderr


def test_a_dirty_key_file_is_cleaned(fresh: Site) -> None:
    """As an editor leaves it; the daemon refuses it before, and takes it after."""
    keys = fresh.folder / "api-keys"
    keys.write_bytes(f'\ufeff# mine\r\nexport KEY="{KEY}"  # main\r\n'.encode())
    done = setup(fresh, "--yes")
    assert done.returncode == 0, done.stderr
    assert "Removed in the file with the keys: " in done.stdout
    assert fresh.syncd("check-config").returncode == 0
    assert "# mine" in keys.read_text()
    assert "# main" in keys.read_text()


def test_keys_move_out_of_the_configuration(site: Site) -> None:
    """With a new key only; the file that others of the group may read has none afterwards."""
    assert setup(site, "--yes").returncode == 0
    assert made(site)["dreamship"]["api_keys"] == [KEY]
    assert not (site.folder / "api-keys").exists()
    site.api.keys = (KEY, NEW_KEY)
    assert setup(site, "--yes", "--key-file=-", stdin=NEW_KEY).returncode == 0
    assert made(site)["dreamship"]["api_keys"] == []
    assert (site.folder / "api-keys").read_text().splitlines()[1:] == [NEW_KEY, KEY]
    assert "api keys: 2" in site.syncd("check-config").stdout


FAULTY_FLAGS = {
    "no key": ["--yes"],
    "argument": ["--yes", NEW_KEY],
    "file name": ["--yes", f"--key-file={NEW_KEY}"],
    "no terminal": ["--key-file=-"],
    "http": ["--yes", "--key-file=-", "--public-url=http://shop.example.com"],
    "query": ["--yes", "--key-file=-", "--public-url=https://shop.example.com/?a=b"],
    "user": ["--yes", "--key-file=-", "--shop-user=nobody-here"],
    "listings": ["--yes", "--key-file=-", "--listings=nowhere.csv"],
    "proxy": ["--yes", "--key-file=-", "--proxy=nginx"],
}


@pytest.mark.parametrize(
    ("fault", "code", "error"),
    [
        ("refused", 4, "Dreamship answered 401"),
        ("forbidden", 4, "Dreamship answered 403"),
        ("down", 4, "Dreamship answered 503"),
        ("unreachable", 4, "could not be reached"),
        ("no key", 2, "there is no api key"),
        ("dirt", 2, "is an address, not a key"),
        ("argument", 2, "setup takes no argument"),
        ("file name", 2, "--key-file cannot be read: No such file"),
        ("no terminal", 2, "--sellable VALUE is missing, and there is no terminal"),
        ("http", 2, "--public-url must begin with https://"),
        ("query", 2, "--public-url must have no user, query or fragment"),
        ("user", 2, "--shop-user names nobody-here, and this host has no such user"),
        ("listings", 2, "--listings cannot be used: it cannot be read"),
        ("proxy", 2, "--proxy needs --public-url"),
        ("faulty", 2, "reconcile.settle: must be a duration"),
    ],
)
def test_a_fault_writes_nothing_and_shows_no_key(
    fresh: Site, fault: str, code: int, error: str
) -> None:
    """One line what is wrong, one what to try, and the exit code of the contract."""
    text = fresh.config.read_text()
    stdin = {"refused": NEW_KEY, "dirt": "https://app.dreamship.com/"}.get(fault, KEY)
    arguments = FAULTY_FLAGS.get(fault, ["--yes", "--key-file=-"])
    if fault == "forbidden":
        fresh.api.faults.refused_with = 403
    elif fault == "down":
        fresh.api.faults.down = True
    elif fault == "unreachable":
        fresh.config.write_text(re.sub(r"http://127.0.0.1:\d+", "http://127.0.0.1:9", text))
    elif fault == "faulty":
        fresh.config.write_text(text.replace('"2s"', '"soon"'))
    before = snapshot(fresh.folder)
    done = setup(fresh, *arguments, stdin=stdin)
    assert done.returncode == code, done.stderr
    first, second = done.stderr.splitlines()[-2:]
    assert first.startswith("Error: ")
    assert error in first
    assert second.startswith("Try: ")
    assert not [key for key in (KEY, NEW_KEY) if key in done.stdout + done.stderr]
    assert snapshot(fresh.folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_folder_that_cannot_be_written_is_named_before_the_first_question(
    fresh: Site,
) -> None:
    """The error comes before the first question."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        done = subprocess.run(
            [sys.executable, str(AS_USER), "65534", "65534", "setup", "-c", f"{folder}/c.toml"],
            env=fresh.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        first, second = done.stderr.splitlines()
        assert first == f"Error: {folder} cannot be written"
        assert second.startswith("Try: ")


def test_the_values_of_a_filled_mirror_need_no_calls(fresh: Site) -> None:
    """One call tests the key; the counts are those of the whole catalogue."""
    assert setup(fresh, "--yes", "--key-file=-", stdin=KEY).returncode == 0
    assert fresh.syncd("reconcile-now").returncode == 0
    before = len(fresh.api.calls)
    document = json.decode(setup(fresh, "--yes", "--json").stdout)
    assert len(fresh.api.calls) == before + 1
    assert document["items_read"] is None
    assert sum(document["values"].values()) == 20
