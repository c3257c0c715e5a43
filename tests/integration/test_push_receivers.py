"""The receivers of syncd/docs/push.md and syncd/examples: verification, and allowed changes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from conftest import Site
from documents import PACKAGE, blocks
from pushing import SECRET, WRONG_SECRET, configure_push
from standardwebhooks.webhooks import Webhook

from syncd.config import SigningSecret
from syncd.core.pushes import test_body as body_of_test
from syncd.push.sinks import UrlSink

EXAMPLE = PACKAGE / "examples" / "receiver.py"


def headers_for(body: bytes, *, secret: str = SECRET, late_s: int = 0) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=late_s)
    signature = Webhook(secret).sign("msg_1", at, body.decode())
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": f"v1,{'A' * 43}= {signature}",
    }


BODY = '{"changes": [], "é": 1}'.encode()


def signed_cases() -> list[tuple[bool, bytes, dict[str, str]]]:
    """Return messages that were signed now, and whether each is valid."""
    return [
        (True, BODY, headers_for(BODY)),
        (False, BODY + b" ", headers_for(BODY)),
        (False, BODY, headers_for(BODY, secret=WRONG_SECRET)),
        (False, BODY, headers_for(BODY, late_s=600)),
        (False, BODY, {}),
        (False, BODY, headers_for(BODY) | {"webhook-signature": "v1,"}),
        (False, BODY, headers_for(BODY) | {"webhook-id": "msg_2"}),
    ]


@pytest.mark.parametrize("language", ["node", "php"])
def test_the_documented_verification_agrees_with_the_library(language: str, tmp_path: Path) -> None:
    """It takes a valid signature, and refuses each kind of invalid one."""
    if shutil.which(language) is None:
        pytest.skip(f"{language} is not installed")
    name, fence = ("Node", "js") if language == "node" else ("PHP", "php")
    (code,) = blocks(name, fence)
    cases = signed_cases()
    # Node has the names in lower case; PHP behind a web server has them like `Webhook-Id`.
    case = str.lower if language == "node" else str.title
    messages = json.dumps(
        [
            [body.decode(), {case(name): value for name, value in headers.items()}]
            for _, body, headers in cases
        ]
    )
    (tmp_path / "cases.json").write_text(messages)
    if language == "node":
        program = tmp_path / "check.mjs"
        program.write_text(
            f'import {{ readFileSync }} from "node:fs";\n{code}\n'
            'const cases = JSON.parse(readFileSync("cases.json", "utf8"));\n'
            "const said = cases.map(([body, headers]) =>\n"
            f'  verified("{SECRET}", headers, Buffer.from(body)));\n'
            "console.log(JSON.stringify(said));\n"
        )
    else:
        program = tmp_path / "check.php"
        program.write_text(
            f"<?php\n{code}\n"
            "$said = [];\n"
            "foreach (json_decode(file_get_contents('cases.json'), true) as [$body, $headers]) {\n"
            f"    $said[] = verified('{SECRET}', $headers, $body);\n"
            "}\necho json_encode($said);\n"
        )
    done = subprocess.run(
        [language, str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [is_valid for is_valid, _, _ in cases]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("receiver", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Shop:
    """The example with a shop of some products."""

    def __init__(self, example: ModuleType, path: Path, products: dict[str, bool]) -> None:
        self.receiver = example.Receiver(str(path))
        self.receiver.db.executemany("INSERT INTO products VALUES (?, ?)", products.items())
        self._ids = 0

    def put(self, sku: str, *, on_sale: bool) -> None:
        """Change a product by hand."""
        self.receiver.put_on_sale(sku, on_sale=on_sale)

    def get(self, *changes: dict[str, Any], id_: str = "", **more: Any) -> None:
        """Get one message."""
        self._ids += 1
        body = {"mirror": "m", "full": False, "changes": list(changes)} | more
        self.receiver.apply(id_ or f"msg_{self._ids}", body)

    @property
    def on_sale(self) -> set[str]:
        rows = self.receiver.db.execute("SELECT sku FROM products WHERE on_sale = 1")
        return {sku for (sku,) in rows}


def change(variant_id: int, seq: int | None, *skus: str, sellable: bool) -> dict[str, Any]:
    return {
        "variant_id": variant_id,
        "seq": seq,
        "skus": list(skus),
        "sellable": int(sellable),
    }


@pytest.fixture
def shop(example: ModuleType, tmp_path: Path) -> Iterator[Shop]:
    one = Shop(example, tmp_path / "receiver.db", {"A": True, "B": True, "OFF": False})
    with contextlib.closing(one.receiver.db):
        yield one


def test_the_example_turns_on_only_products_that_it_turned_off(shop: Shop) -> None:
    """A product that a person turned off stays off."""
    shop.get(change(1, 1, "A", "OFF", sellable=False))
    assert shop.on_sale == {"B"}
    shop.get(change(1, 2, "A", "OFF", sellable=True))
    assert shop.on_sale == {"A", "B"}
    shop.put("A", on_sale=False)
    shop.get(change(1, 3, "A", sellable=False), change(1, 4, "A", sellable=True))
    assert shop.on_sale == {"B"}


def test_the_example_skips_old_changes(shop: Shop) -> None:
    """After a copy that had them, and a repeated message; another mirror counts anew."""
    row = change(1, 5, "A", sellable=True)
    shop.get(row, full=True, begin=True, end=False)
    shop.get(full=True, begin=False, end=True)
    shop.get(change(1, 4, "A", sellable=False))
    assert "A" in shop.on_sale
    shop.get(change(1, 6, "A", sellable=False), id_="same")
    shop.put("A", on_sale=True)
    shop.get(change(1, 6, "A", sellable=False), id_="same")
    assert "A" in shop.on_sale
    shop.get(change(1, 1, "A", sellable=False), full=True, begin=True, end=False, mirror="n")
    assert "A" not in shop.on_sale
    shop.get(change(1, 2, "A", sellable=True), mirror="n")
    assert "A" in shop.on_sale


def test_the_example_forgets_variants_that_a_copy_does_not_have(shop: Shop) -> None:
    """A row with an older number applies again."""
    shop.get(
        change(1, 5, "A", sellable=True), change(2, 6, "B", sellable=True), full=True, begin=True
    )
    shop.get(full=True, end=True)
    shop.get(change(1, 5, "A", sellable=True), full=True, begin=True)
    shop.get(full=True, end=True)
    known = shop.receiver.db.execute("SELECT variant_id FROM variants").fetchall()
    assert known == [(1,)]


def test_the_example_finishes_after_a_failure(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shop fails in the middle of a message; the same message comes again."""
    whole = (change(1, 1, "A", sellable=False), change(2, 2, "B", sellable=False))
    original = shop.receiver.put_on_sale

    def fail(sku: str, *, on_sale: bool) -> None:
        if sku == "B":
            raise OSError
        original(sku, on_sale=on_sale)

    monkeypatch.setattr(shop.receiver, "put_on_sale", fail)
    with pytest.raises(OSError):  # noqa: PT011 - any failure
        shop.get(*whole, id_="one")
    monkeypatch.setattr(shop.receiver, "put_on_sale", original)
    shop.get(*whole, id_="one")
    assert shop.on_sale == set()
    shop.get(change(1, 3, "A", sellable=True), change(2, 4, "B", sellable=True))
    assert shop.on_sale == {"A", "B"}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[int]:
    """Run the example as its first lines say; give its port."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), "--port", "0", "--database", "receiver.db"],
        cwd=folder,
        env={"SYNCD_PUSH_SECRET": SECRET, "PYTHONPATH": str(PACKAGE.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    port = int(process.stderr.readline().split()[-1])
    # A full pipe would stop it.
    reading = threading.Thread(target=process.stderr.read)
    reading.start()
    try:
        yield port
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stderr.close()


def test_the_example_as_a_program(site: Site, tmp_path: Path) -> None:
    """A daemon pushes to it: a product is off while it cannot be sold, and then on again."""
    sold = {
        variant_id
        for variant_id, value in site.catalogue.current_values().items()
        if value in {"in_stock", "low_stock"}
    }
    skus = {f"SKU-{variant_id}": variant_id for variant_id in site.catalogue.variants}
    listings = tmp_path / "listings.csv"
    listings.write_text(
        "sku,variant_id\n" + "".join(f"{sku},{variant}\n" for sku, variant in skus.items())
    )
    with running(tmp_path) as port:
        url = f"http://127.0.0.1:{port}/"
        assert httpx.post(url, content=b"{}", trust_env=False).status_code == 401
        body = body_of_test(None)
        test = httpx.post(url, content=body, headers=headers_for(body), trust_env=False)
        assert test.status_code == 204
        with contextlib.closing(sqlite3.connect(tmp_path / "receiver.db", timeout=5)) as db:
            with db:
                db.executemany("INSERT INTO products VALUES (?, 1)", [(sku,) for sku in skus])

            def on_sale() -> set[int]:
                rows = db.execute("SELECT sku FROM products WHERE on_sale = 1").fetchall()
                return {skus[sku] for (sku,) in rows}

            site.settings["catalog"] = {"listings": str(listings)}
            table = {"name": "shop", "url": url, "secret": SECRET, "only": "listings"}
            configure_push(site, table)
            daemon = site.serve()
            site.until(lambda: on_sale() == sold)
            one = min(sold)
            daemon.deliver(site.change(one, "out_of_stock"))
            site.until(lambda: on_sale() == sold - {one})
            daemon.deliver(site.change(one, "in_stock"))
            site.until(lambda: on_sale() == sold)
            daemon.stop()


def test_the_signature_is_of_the_specification() -> None:
    """Its own example, from the text of the specification."""
    secret = "whsec_plJ3nmyCDGBKInavdOK15jsl"
    payload = '{"event_type":"ping","data":{"success":true}}'
    at = datetime.fromtimestamp(1731705121, UTC)
    signature = Webhook(secret).sign("msg_loFOjxBNrRLzqYUf", at, payload)
    assert signature == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
    UrlSink("http://127.0.0.1:9/", SigningSecret(secret), lambda: at)
