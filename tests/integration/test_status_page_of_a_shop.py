"""The status page as a shop reads it: its SKUs."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest
from shop_listings import list_skus

if TYPE_CHECKING:
    from conftest import Daemon

EVIL = "<b>&\"'\u202e"
UNKNOWN = 999_999


def shown(daemon: Daemon, query: str = "") -> str:
    answer = httpx.get(f"{daemon.admin_url}/", params={"q": query}, trust_env=False)
    assert answer.status_code == 200
    return answer.text


def words(text: str) -> str:
    """Return the text of the page as a reader sees it, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())


def part(text: str, key: str) -> str:
    """Return one section of the page."""
    found = re.search(rf'<section [^>]*data-key="{key}".*?</section>', text, re.DOTALL)
    assert found is not None, key
    return found[0]


class Shop(NamedTuple):
    """A daemon with listings, and variants of its catalogue."""

    daemon: Daemon
    variants: list[int]


@pytest.fixture(scope="module")
def shop(shared: Daemon) -> Shop:
    """Give a daemon with SKUs: five of one variant, one of another, one that leads nowhere."""
    variants = list(shared.site.catalogue.variants)
    listed = [(f"TEE-{n}", variants[0], f"Design {n}") for n in range(5)]
    listed += [("MUG/ä&1", variants[1], EVIL), ("LOST", UNKNOWN, ""), ("48", variants[2], "")]
    list_skus(shared, listed)
    for variant_id in variants[:3]:
        shared.deliver(shared.site.change(variant_id, "in_stock"))
    return Shop(shared, variants)


def test_an_exact_sku_explains_its_variant(shop: Shop) -> None:
    """Also when it has characters that an address must quote."""
    variant_id = shop.variants[1]
    shop.daemon.deliver(shop.daemon.site.change(variant_id, "made to order"))
    found = part(shown(shop.daemon, "MUG/ä&1"), "found")
    assert f"Variant {variant_id} (" in words(found)
    assert "no: has a value that is not sellable" in found
    assert 'href="?q=MUG%2F%C3%A4%261"' in found
    assert "&lt;b&gt;&amp;&#34;&#39;\\u202e" in found
    assert "The mirror does not have this variant." in words(shown(shop.daemon, "LOST"))


def test_a_search_finds_part_of_a_sku(shop: Shop) -> None:
    """In any case of letters; with title and variant; `%` and `_` are plain characters."""
    found = part(shown(shop.daemon, "tee-"), "found")
    assert re.findall(r'<tr data-key="([^"]*)">', found) == [f"TEE-{n}" for n in range(5)]
    assert "5 SKUs found" in found
    assert "Design 3" in found
    # All of them lead to one variant.
    assert f"Variant {shop.variants[0]} (" in words(found)
    for query in ("TEE%", "T_E", "nothing is called like this"):
        assert "<p>No SKU and no variant matches.</p>" in shown(shop.daemon, query)
    by_id = part(shown(shop.daemon, str(shop.variants[0])), "found")
    assert "5 SKUs found" in by_id
    assert "1 variant found" in by_id
