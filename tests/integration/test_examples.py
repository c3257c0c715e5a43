"""syncd/examples: valid in each language, fail-safe, and used as documented."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from documents import SHOPS as DOCUMENT
from documents import code_of
from shops import EXAMPLES, SHOPS, Shop, command, documented, needs, run

if TYPE_CHECKING:
    from conftest import Daemon

# The syntax check of each language. For Python, the lint of the tests does it.
CHECKS = [
    ("mirror.php", ["php", "-l"]),
    ("mirror_sqlite3.php", ["php", "-l"]),
    ("mirror.mjs", ["node", "--check"]),
    ("mirror.rb", ["ruby", "-wc"]),
    ("mirror.sh", ["sh", "-n"]),
    ("mirror.sh", ["shellcheck"]),
    ("mirror.go", ["gofmt", "-d"]),
]
ONE_OF_A_LANGUAGE = [shop for shop in SHOPS if shop.name != "PHP SQLite3"]
FOLLOWERS = [shop for shop in ONE_OF_A_LANGUAGE if shop.name != "sqlite3"]


@pytest.mark.parametrize(("name", "check"), CHECKS, ids=str)
def test_an_example_passes_the_checker_of_its_language(name: str, check: list[str]) -> None:
    """Without a warning."""
    if shutil.which(check[0]) is None:
        pytest.skip(f"{check[0]} is not installed")
    done = subprocess.run(
        [*check, str(EXAMPLES / name)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    assert check[0] != "gofmt" or done.stdout == ""


@pytest.mark.parametrize("key", ["variant_id", "sku"])
def test_every_example_runs_the_documented_statement(key: str) -> None:
    """Letter by letter, except white space and the placeholder; the conditions occur only once."""

    def plain(sql: str) -> str:
        return " ".join(re.sub(r":\w+", "?", sql).split())

    statement = next(sql for sql in code_of(DOCUMENT, "sql") if sql.startswith(f"SELECT {key}\n"))
    query, conditions = plain(statement).rstrip(";").split(" AND sellable = 1 ")
    for path in EXAMPLES.iterdir():
        if path.name.startswith("mirror.") and path.is_file():
            # The shell has no JSON: it checks that its ids are numbers, and quotes its SKUs.
            source = re.sub(
                r"\(\$ids\)|\(\$\(mirror_texts \"\$@\"\)\)",
                "(SELECT value FROM json_each(?))",
                path.read_text(),
            )
            # Placeholders of the languages are no part of the statement.
            assert plain(source).count(query) == 1, path
            assert plain(source).count(f"AND sellable = 1 {conditions}") == 1, path


@pytest.mark.parametrize("shop", ONE_OF_A_LANGUAGE, ids=lambda shop: shop.name)
def test_the_documented_product_page_shows_availability(
    shop: Shop, shared: Daemon, tmp_path: Path
) -> None:
    """One sellable variant and one that is not."""
    needs(shop)
    rows = shared.site.rows("SELECT variant_id, sellable FROM availability ORDER BY variant_id")
    on_sale = next(row["variant_id"] for row in rows if row["sellable"])
    off_sale = next(row["variant_id"] for row in rows if not row["sellable"])
    source = documented("A product page", shop, shared.site.mirror)
    source = source.replace("48211", str(on_sale)).replace("48212", str(off_sale))
    done = run(shop, source, tmp_path)
    assert done.stderr == ""
    assert done.stdout == f"{on_sale} add to cart\n{off_sale} sold out\n"


@pytest.mark.parametrize("shop", ONE_OF_A_LANGUAGE, ids=lambda shop: shop.name)
@pytest.mark.parametrize("name", ["missing.db", "no database.db"])
@pytest.mark.parametrize(
    ("title", "output"),
    [
        ("A product page", "48211 sold out\n48212 sold out\n"),
        ("A checkout by SKU", "sold out: TEE-M TEE-L\n"),
    ],
)
def test_without_a_mirror_nothing_is_sold(
    shop: Shop, name: str, title: str, output: str, tmp_path: Path
) -> None:
    """The page is shown without an error, and the log names the file."""
    needs(shop)
    mirror = tmp_path / name
    if name != "missing.db":
        mirror.write_text("this is no database, and long enough to be read as one" * 100)
    done = run(shop, documented(title, shop, mirror), tmp_path)
    assert done.returncode == 0, done.stderr
    assert output in done.stdout
    assert str(tmp_path) in done.stderr


@pytest.mark.parametrize("shop", ONE_OF_A_LANGUAGE, ids=lambda shop: shop.name)
def test_a_path_may_have_any_characters(shop: Shop, shared: Daemon, tmp_path: Path) -> None:
    """Such as those with a meaning in a URI."""
    needs(shop)
    odd = tmp_path / "a %41 b?c#d&e"
    odd.mkdir()
    mirror = odd / "mürror.db"
    assert shared.site.syncd("backup", str(mirror)).returncode == 0
    (row,) = shared.site.rows("SELECT min(variant_id) AS one FROM availability WHERE sellable = 1")
    source = documented("A product page", shop, mirror).replace("48211", str(row["one"]))
    done = run(shop, source, tmp_path)
    assert (done.stderr, done.stdout) == ("", f"{row['one']} add to cart\n48212 sold out\n")


@pytest.mark.parametrize("shop", FOLLOWERS, ids=lambda shop: shop.name)
def test_the_documented_follower_continues_where_it_was(
    shop: Shop, shared: Daemon, tmp_path: Path
) -> None:
    """It copies the mirror once, then sees each change."""
    needs(shop)
    site, folder = shared.site, tmp_path / "shop"
    program = command(shop, documented("A follower", shop, site.mirror), folder)
    index: dict[str, str] = {}
    cleared = 0
    for turn in range(3):
        log = folder / f"{turn}.log"
        with log.open("w") as out:
            process = subprocess.Popen(program, cwd=folder, stdout=out, stderr=out)
            try:
                variant = sorted(site.catalogue.variants)[turn]
                is_sold = site.catalogue.current_values()[variant] == "in_stock"
                shared.deliver(site.change(variant, "low_stock" if is_sold else "in_stock"))
                _until(lambda: _is_at_the_end(site.rows, folder))
            finally:
                process.kill()
                process.wait()
        for line in log.read_text().splitlines():
            if line == "clear":
                index, cleared = {}, cleared + 1
            else:
                variant_id, sellable = line.split()
                index[variant_id] = {"true": "1", "false": "0"}.get(sellable, sellable)
        rows = site.rows("SELECT variant_id, sellable FROM availability")
        assert index == {str(row["variant_id"]): str(row["sellable"]) for row in rows}
    assert cleared == 1


def _is_at_the_end(rows: Callable[[str], list[dict[str, object]]], folder: Path) -> bool:
    (last,) = rows("SELECT max(seq) AS seq FROM changes")
    stored = folder / "position.json"
    return stored.exists() and re.findall(r"\d+", stored.read_text())[:1] == [str(last["seq"])]


def _until(done: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
