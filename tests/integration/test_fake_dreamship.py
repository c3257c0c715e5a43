"""The simulated Dreamship behaves as Dreamship is documented; other tests rely on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import httpx
import pytest
from msgspec import json

from syncd.core.signature import HEADER, is_authentic
from syncd.demo.fake_dreamship import (
    Api,
    Catalog,
    Event,
    Faults,
    Network,
    Throttle,
    WebhookSender,
    django_timestamp,
    serving_in_thread,
    stale_event,
)
from syncd.demo.fake_dreamship.faults import Fault
from syncd.http_server.server import HttpServer
from syncd.http_server.sockets import bind_tcp

now = partial(datetime.now, UTC)
KEY = "ds_key"


@pytest.fixture
def api() -> Api:
    """Give an API of 30 items with 2 variants each; not served."""
    return Api(Catalog.generate(30, 2, seed=3, now=now), (KEY, "ds_other"))


@pytest.fixture
def client(api: Api) -> Iterator[httpx.Client]:
    """Give a client of the API on a real socket, with a valid key."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        serving_in_thread(api) as base_url,
        httpx.Client(base_url=base_url, headers=headers, trust_env=False) as one,
    ):
        yield one


def test_a_listing_is_paged(api: Api, client: httpx.Client) -> None:
    """25 a page by default, at most 100, and `next` leads through all items once."""
    first = client.get("/items/").json()
    assert (first["paging"]["count"], first["paging"]["previous"]) == (30, None)
    assert len(first["data"]) == 25
    second = client.get(first["paging"]["next"]).json()
    assert second["paging"]["next"] is None
    listed = [item["id"] for page in (first, second) for item in page["data"]]
    assert listed == sorted(api.catalogue.names)
    assert "item_variants" not in first["data"][0]
    assert len(client.get("/items/", params={"limit": 7, "page": 5}).json()["data"]) == 2
    assert client.get("/items/", params={"page": 3}).status_code == 404
    assert client.get("/items/", params={"page": "x"}).status_code == 404


def test_an_item_has_its_variants(api: Api, client: httpx.Client) -> None:
    """As in the documented GET; a missing item is a 404 in JSON."""
    item_id = min(api.catalogue.names)
    item = client.get(f"/items/{item_id}/").json()
    assert item["name"] == api.catalogue.names[item_id]
    output = {one["id"]: one["availability"] for one in item["item_variants"]}
    assert output == {one.variant_id: one.availability for one in api.catalogue.of_item(item_id)}
    gone = client.get("/items/1/")
    assert (gone.status_code, gone.json()["error"]["key"]) == (404, "not_found")


def test_a_category_lists_its_items(api: Api, client: httpx.Client) -> None:
    """With pages, like the catalogue."""
    chosen = sorted(api.catalogue.names)[:3]
    api.catalogue.categories[5] = set(chosen)
    assert [one["id"] for one in client.get("/categories/").json()["data"]] == [5]
    items = client.get("/categories/5/items/").json()
    assert [one["id"] for one in items["data"]] == chosen
    assert client.get("/categories/6/items/").status_code == 404


def test_only_its_keys_are_accepted(api: Api, client: httpx.Client) -> None:
    """Any of its keys; 401 for all others."""
    for header in ("Bearer ds_other", "ds_other"):
        assert client.get("/items/", headers={"Authorization": header}).status_code == 200
    answer = client.get("/items/", headers={"Authorization": "Bearer no"})
    assert (answer.status_code, answer.json()["error"]["status_code"]) == (401, 401)
    api.faults.refused_with = 403
    assert client.get("/items/").status_code == 403


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("has_message", [True, False])
def test_the_throttle_answers_as_documented(
    api: Api, client: httpx.Client, *, has_header: bool, has_message: bool
) -> None:
    """After the limit, a 429 names the wait in a header, in the text, in both or not at all."""
    api.faults.throttle = Throttle(3, window_s=60, has_header=has_header, has_message=has_message)
    codes = [client.get("/items/").status_code for _ in range(3)]
    refused = client.get("/items/")
    assert [*codes, refused.status_code] == [200, 200, 200, 429]
    error = refused.json()["error"]
    assert (error["key"], error["status_code"]) == ("throttled", 429)
    assert ("Expected available in 60 seconds." in error["message"]) == has_message
    assert refused.headers.get("Retry-After") == ("60" if has_header else None)
    assert [call.status for call in api.calls] == [200, 200, 200, 429]


def test_the_throttle_counts_a_sliding_window() -> None:
    """Not the minutes of a clock; refused calls do not count."""
    throttle = Throttle(2, window_s=10)
    assert [throttle.wait_s(at) for at in (0.0, 6.0, 8.0, 9.5)] == [None, None, 2.0, 0.5]
    assert [throttle.wait_s(at) for at in (10.0, 10.0, 16.0)] == [None, 6.0, None]


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        ("500", 500, "text/html"),
        ("502", 502, "text/html"),
        ("503", 503, "text/html"),
        ("404", 404, "application/json"),
        ("html-404", 404, "text/html"),
        ("html", 200, "text/html"),
        ("garbage", 200, "application/json"),
    ],
)
def test_a_fault_replaces_an_answer(
    api: Api, client: httpx.Client, failure: Fault, status: int, kind: str
) -> None:
    """Once if scripted, and always if set for an item or page."""
    one, other = sorted(api.catalogue.names)[:2]
    api.faults.of_item[one] = [failure]
    api.faults.always[other] = failure
    answer = client.get(f"/items/{one}/")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (status, kind)
    assert client.get(f"/items/{one}/").json()["id"] == one
    assert [client.get(f"/items/{other}/").status_code for _ in range(2)] == [status] * 2


@pytest.mark.parametrize("failure", ["truncate", "reset"])
def test_a_connection_can_break(api: Api, client: httpx.Client, failure: Fault) -> None:
    """Before the answer, or in the middle of it."""
    api.faults.of_page = [failure]
    with pytest.raises(httpx.HTTPError):
        client.get("/items/")
    assert client.get("/items/").status_code == 200


def test_down_answers_with_the_page_of_a_proxy(api: Api, client: httpx.Client) -> None:
    """503 with HTML for every request."""
    api.faults.down = True
    answer = client.get("/items/")
    assert (answer.status_code, answer.text[:6]) == (503, "<html>")


def test_reads_can_lag_and_dates_can_be_wrong(api: Api, client: httpx.Client) -> None:
    """A read returns the values of some seconds ago; `Date` has a fixed error."""
    variant = min(api.catalogue.variants.values(), key=lambda one: one.variant_id)
    old = variant.availability
    api.catalogue.set_availability(variant.variant_id, "made to order")
    url = f"/items/{variant.item_id}/"

    def output() -> str:
        rows = client.get(url).json()["item_variants"]
        return str(next(row["availability"] for row in rows if row["id"] == variant.variant_id))

    assert output() == "made to order"
    api.faults.lag_s = 20
    assert output() == old
    api.faults.date_skew_s = -240
    date = parsedate_to_datetime(client.get(url).headers["Date"])
    assert timedelta(seconds=238) < now() - date < timedelta(seconds=243)


def test_some_rows_of_a_list_can_have_variants(api: Api, client: httpx.Client) -> None:
    """Row by row, since the real behaviour is unknown."""
    api.faults.lists_variants = lambda item_id: item_id % 2 == 0
    for row in client.get("/items/", params={"limit": 100}).json()["data"]:
        assert ("item_variants" in row) == (row["id"] % 2 == 0)


def test_a_share_of_calls_can_fail() -> None:
    """At random, and equally for the same seed."""
    one, same = Faults(share=0.3), Faults(share=0.3)
    drawn = [one.next_for(7) for _ in range(200)]
    assert drawn == [same.next_for(7) for _ in range(200)]
    assert 30 < sum(failure is not None for failure in drawn) < 90
    assert Faults().next_for(7) is None


def test_catalogues_of_one_seed_are_equal() -> None:
    """So that a failing test can be repeated."""
    one, same, other = (Catalog.generate(5, 3, seed=seed, now=now) for seed in (1, 1, 2))
    assert one.current_values() == same.current_values() != other.current_values()
    assert len(one.current_values()) == 15


# The sender.

Answer = Callable[[bytes, bytes], int]


@contextlib.asynccontextmanager
async def receiving(answer: Answer) -> AsyncIterator[str]:
    """Give the URL of a receiver that answers deliveries with the codes of `answer`."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        signature = dict(scope["headers"]).get(HEADER.lower().encode(), b"")
        status = answer(body, signature)
        head = {"type": "http.response.start", "status": status, "headers": []}
        await send(head)
        await send({"type": "http.response.body", "body": b'{"outcome":"applied"}'})

    bound = bind_tcp("127.0.0.1", 0, key="test")
    server = HttpServer(app, bound)  # type: ignore[arg-type]  # an application by its form
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop()
        bound.close()


def posted(
    answer: Answer,
    network: Network,
    scenario: Callable[[WebhookSender], Awaitable[None]],
    **settings: Any,
) -> WebhookSender:
    """Run a scenario with a sender of a small catalogue; return the sender."""

    async def play() -> WebhookSender:
        catalogue = Catalog.generate(2, 2, seed=1, now=now)
        async with (
            receiving(answer) as url,
            WebhookSender(catalogue, url, (KEY, "ds_other"), network=network, **settings) as sender,
        ):
            await scenario(sender)
            return sender

    return asyncio.run(play())


async def flip(sender: WebhookSender, times: int = 20) -> None:
    """Change a variant so many times, with a delivery for each change."""
    variant_id = min(sender.catalogue.variants)
    for number in range(times):
        sender.post(sender.catalogue.set_availability(variant_id, f"value {number}"))
    await sender.drain()


def test_a_delivery_is_signed_with_every_key() -> None:
    """Over the bytes that are posted, in the documented format."""
    found: list[dict[str, Any]] = []

    def answer(body: bytes, signature: bytes) -> int:
        assert is_authentic(body, signature, [KEY])
        assert is_authentic(body, signature, ["ds_other"])
        assert not is_authentic(body, signature, ["ds_third"])
        found.append(json.decode(body))
        return 200

    sender = posted(answer, Network(), partial(flip, times=1))
    assert (sender.sent, sender.refused, sender.lost) == (1, 0, 0)
    (output,) = found
    assert output["event"]["action"] == "item-variant-availability-updated"
    assert output["data"]["availability"] == "value 0"
    assert output["data"]["item"] == min(sender.catalogue.names)
    assert output["id"] == output["event"]["object_id"] == output["data"]["id"]


def test_an_endpoint_that_fails_is_disabled() -> None:
    """After enough failures in a row it sends nothing until a person enables it again."""
    codes = {"now": 500}

    async def scenario(sender: WebhookSender) -> None:
        await flip(sender, 3)
        assert sender.disabled
        assert sender.sent == 0
        codes["now"] = 200
        before = sender.lost
        await flip(sender, 4)
        assert (sender.sent, sender.lost) == (0, before + 4)
        sender.enable()
        await flip(sender, 2)
        assert sender.sent == 2

    posted(lambda *_: codes["now"], Network(), scenario, disables_after=6, retry_s=0.01)


def test_failed_deliveries_are_retried() -> None:
    """A success resets the count of failures."""
    codes = iter([503, 500, 200])
    sender = posted(
        lambda *_: next(codes), Network(), partial(flip, times=1), retry_s=0.01, disables_after=3
    )
    assert (sender.sent, sender.refused, sender.disabled) == (1, 2, False)


def test_deliveries_can_be_lost_and_doubled() -> None:
    """By the configured shares; each copy is counted."""
    doubled = posted(lambda *_: 200, Network(doubled_share=1), flip)
    assert (doubled.sent, doubled.doubled, doubled.lost) == (40, 20, 0)
    lost = posted(lambda *_: 200, Network(lost_share=1), flip)
    assert (lost.sent, lost.lost) == (0, 20)
    outage = posted(lambda *_: 200, Network(outage=True), flip)
    assert (outage.sent, outage.lost) == (0, 20)


def test_a_delay_reorders_deliveries() -> None:
    """The data is that of the time of sending."""
    found: list[str] = []

    def answer(body: bytes, _: bytes) -> int:
        found.append(json.decode(body)["event"]["timestamp"])
        return 200

    posted(answer, Network(delay_s=(0, 0.2)), flip)
    assert len(found) == 20
    assert found != sorted(found)


def test_bodies_can_have_every_form() -> None:
    """With and without an item, a timestamp, and numbers."""
    catalogue = Catalog.generate(1, 1, seed=1, now=now)
    (variant,) = catalogue.variants.values()
    sender = WebhookSender(catalogue, "", (KEY,))
    event = catalogue.set_availability(variant.variant_id, "low_stock")

    def output(**forms: Any) -> Any:
        return json.decode(sender.body(event, **forms))

    assert output(form="object")["data"]["item"]["id"] == variant.item_id
    assert output(form="item_id")["data"]["item_id"] == variant.item_id
    assert not {"item", "item_id"} & output(form="none")["data"].keys()
    assert "timestamp" not in output(timestamp=None)["event"]
    assert output()["event"]["timestamp"] == django_timestamp(event.at)
    assert output(text_ids=True)["id"] == str(variant.variant_id)
    old = stale_event(variant.variant_id, "long ago", event.at, variant.item_id)
    assert json.decode(sender.body(old))["data"]["availability"] == "long ago"
    gone: Event = catalogue.set_availability(variant.variant_id, "in_stock")
    catalogue.remove_variant(variant.variant_id)
    assert json.decode(sender.body(gone))["data"] == {"id": variant.variant_id}


def test_a_zero_fraction_is_left_out_of_a_timestamp() -> None:
    """As in Django."""
    whole = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
    assert django_timestamp(whole) == "2026-03-01T12:00:30Z"
    assert django_timestamp(whole.replace(microsecond=103721)) == "2026-03-01T12:00:30.103721Z"
