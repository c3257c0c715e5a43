"""The status page for a shop: the SKUs that it can sell, and those that went off sale."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest
from conftest import opened
from msgspec import convert
from shop_listings import list_skus, write_listings

from syncd.core.headline import deliveries
from syncd.core.listings import MAX_SKU_CHARS
from syncd.core.status_document import StatusDocument

if TYPE_CHECKING:
    from conftest import Daemon, Site

EVIL = "<b>&\"'\u202e"
UNKNOWN = 999_999
LOST = "LOST-".ljust(MAX_SKU_CHARS, "X")


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
    listed += [("MUG/ä&1", variants[1], EVIL), (LOST, UNKNOWN, ""), ("48", variants[2], "")]
    list_skus(shared, listed)
    for variant_id in variants[:3]:
        shared.deliver(shared.site.change(variant_id, "in_stock"))
    return Shop(shared, variants)


def test_the_headline_counts_variants_without_listings(site: Site) -> None:
    """Those that are not removed; the age has its exact moment."""
    daemon = site.serve()
    gone = next(iter(site.catalogue.variants))
    site.catalogue.remove_variant(gone)
    assert site.syncd("reconcile-now", "--accept-removals").returncode == 0
    status = daemon.status()
    text = shown(daemon)
    mirror = status["mirror"]
    headline = part(text, "headline")
    assert mirror["removed"] == 1
    expected = f"Selling {mirror['sellable']} of {mirror['variants'] - 1} variants"
    assert f">{expected}</h2>" in headline
    at = mirror["oldest_confirmed_at"]
    assert f'<time datetime="{at}" title="{at[:19].replace("T", " ")} UTC" data-form="ago">' in (
        headline
    )
    assert "Confirmed less than a minute ago. Deliveries: none yet." in words(headline)
    assert "reason:" not in headline
    # It is the first thing on the page.
    assert text.index(expected) < text.index("<h2", text.index(expected))


def test_the_headline_of_the_first_fill(site: Site) -> None:
    """Its progress; until its end nobody knows whether a SKU leads nowhere."""
    variants = list(site.catalogue.variants)
    write_listings(site, [(f"TEE-{variant_id}", variant_id, "") for variant_id in variants])
    # One call for the list, then a call every five seconds.
    site.configure(dreamship={"calls_per_minute": 12})
    daemon = site.serve(filled=False)
    site.until(lambda: (daemon.status()["listings"] or {}).get("sellable"))
    headline = words(part(shown(daemon), "headline"))
    assert re.match(
        r"Filling for the first time Selling \d+ of 20 SKUs Confirmed less than a minute ago\.",
        headline,
    )
    assert re.search(r"\d of 5 items are read, about .* left\.", headline)
    assert re.search(r"Not for sale: \d+ leads to no variant", headline)


def test_the_headline_of_an_empty_mirror(tmp_path: Path) -> None:
    """No count, no age and no change."""
    with opened(tmp_path, items=0) as site:
        text = shown(site.serve())
    headline = words(part(text, "headline"))
    assert headline.startswith(
        "Waiting for the first delivery Nothing to sell Deliveries: none yet. No delivery has"
    )
    assert "Nothing went off sale yet." in part(text, "off-sale")


def test_the_headline_counts_skus_and_links_the_reasons(shop: Shop) -> None:
    """Each reason leads to its SKUs."""
    shop.daemon.deliver(shop.daemon.site.change(shop.variants[1], "made to order"))
    headline = part(shown(shop.daemon), "headline")
    assert ">Selling 6 of 8 SKUs</h2>" in headline
    status = convert(shop.daemon.status(), StatusDocument)
    assert f"Deliveries: {deliveries(status)}." in words(headline)
    chips = headline[headline.index("Not for sale:") :].partition("</ul>")[0]
    links = re.findall(r'<a href="\?q=([^"]*)">(.*?)</a>', chips)
    assert {link: words(text) for link, text in links} == {
        "reason%3Aunknown": "1 leads to no variant",
        "reason%3Avalue": "1 value not sellable",
    }
    found = part(shown(shop.daemon, "reason:unknown"), "found")
    assert re.findall(r'<li data-key="([^"]*)">', found) == [LOST]
    assert '<span class="sale no">leads to no variant</span>' in found


def test_an_exact_sku_explains_its_variant(shop: Shop) -> None:
    """Also when it is as long as possible, or has characters that an address must quote."""
    variant_id = shop.variants[1]
    shop.daemon.deliver(shop.daemon.site.change(variant_id, "made to order"))
    found = part(shown(shop.daemon, "MUG/ä&1"), "found")
    assert f"Variant {variant_id} (" in words(found)
    assert '<span class="sale no">value not sellable</span>' in found
    assert 'href="?q=MUG%2F%C3%A4%261"' in found
    assert "&lt;b&gt;&amp;&#34;&#39;\\u202e" in found
    lost = words(part(shown(shop.daemon, LOST), "found"))
    assert f"match “{LOST}” Clear the search The mirror does not have this variant." in lost


def test_a_search_finds_part_of_a_sku(shop: Shop) -> None:
    """In any case of letters; with title and variant; `%` and `_` are plain characters."""
    found = part(shown(shop.daemon, "tee-"), "found")
    assert re.findall(r'<li data-key="(T[^"]*)">', found) == [f"TEE-{n}" for n in range(5)]
    assert "5 SKUs found" in found
    assert "Design 3" in found
    # All of them lead to one variant.
    assert f"Variant {shop.variants[0]} (" in words(found)
    for query in ("TEE%", "T_E", "nothing is called like this"):
        assert ">No SKU and no variant matches.</p>" in shown(shop.daemon, query)
    by_id = part(shown(shop.daemon, str(shop.variants[0])), "found")
    assert "5 SKUs found" in by_id
    assert "1 variant found" in by_id


def test_the_variants_that_went_off_sale_last(shop: Shop) -> None:
    """With the SKUs, the change, and whether it can be sold again."""
    site, (first, second, third) = shop.daemon.site, shop.variants[:3]
    for variant_id in (first, second, third):
        shop.daemon.deliver(site.change(variant_id, "in_stock"))
    shop.daemon.deliver(site.change(first, "y" * 500))
    shop.daemon.deliver(site.change(second, EVIL))
    shop.daemon.deliver(site.change(third, "out_of_stock"))
    shop.daemon.deliver(site.change(third, "in_stock"))
    section = part(shown(shop.daemon), "off-sale")
    items = [words(one) for one in re.findall(r"<li .*?</li>", section, re.DOTALL)][:3]
    again, evil, sold_out = items
    assert again.startswith("less than a minute ago ")
    assert f'href="?q={third}"' in section
    assert again.endswith("48 in_stock → out_of_stock on sale again")
    assert evil.endswith("MUG/ä&1 in_stock → <b>&\"'\\u202e value not sellable")
    assert (
        f"TEE-0, TEE-1, TEE-2 and 2 more in_stock → {'y' * 60}… (500 characters) value not"
        in sold_out
    )
    assert site.catalogue.names[site.catalogue.variants[first].item_id] in sold_out
    assert "<b>" not in section
