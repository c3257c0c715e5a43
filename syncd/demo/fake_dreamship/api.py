"""The GET endpoints of Dreamship, as documented and as seen, with the faults of `Faults`."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.status import HTTP_200_OK
from starlette.types import Receive, Scope, Send

from syncd.demo.fake_dreamship.catalog import Catalog
from syncd.demo.fake_dreamship.faults import Fault, Faults, http_date

_HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
_MAX_LIMIT = 100
# Invented items have ids from here on; no catalogue has them.
_INVENTED_FROM = 10**9
_DEFAULT_LIMIT = 25


@dataclass(frozen=True)
class Call:
    """One call that arrived, with the status of its answer."""

    at: datetime
    path: str
    status: int


@dataclass
class Api:
    """The API of one account."""

    catalogue: Catalog
    keys: tuple[str, ...]
    faults: Faults = field(default_factory=Faults)
    calls: list[Call] = field(default_factory=list)

    @property
    def now(self) -> Callable[[], datetime]:
        """Dreamship's clock."""
        return self.catalogue.now

    def application(self) -> Starlette:
        """Return the ASGI application for the root of a host."""
        return Starlette(
            routes=[
                Route("/v1/items/", self._endpoint(self._items)),
                Route("/v1/items/{item_id:int}/", self._endpoint(self._item)),
                Route("/v1/categories/", self._endpoint(self._categories)),
                Route("/v1/categories/{category_id:int}/items/", self._endpoint(self._items)),
            ]
        )

    def _endpoint(self, answer: Callable[[Request], Response]) -> Any:
        return _Endpoint(self, answer)

    async def respond(
        self, request: Request, answer: Callable[[Request], Response]
    ) -> tuple[Response, Fault | None]:
        """Return the answer to one call, and the fault of its transfer."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal, None
        page = request.query_params.get("page", "")
        fault = self.faults.next_for(
            request.path_params.get("item_id"),
            page=int(page) if page.isdigit() else None,
            category=request.path_params.get("category_id"),
        )
        if fault == "slow":
            await asyncio.sleep(self.faults.slow_s)
        if fault == "flood":
            return _flood(request.path_params.get("item_id")), None
        if fault in _FAULT_ANSWERS:
            return _FAULT_ANSWERS[fault](), None
        return answer(request), fault

    def _refusal(self, request: Request) -> Response | None:
        faults = self.faults
        if faults.down:
            return _html(503)
        if faults.refused_with is not None:
            return _error(faults.refused_with, "permission_denied", "Not allowed.")
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key not in self.keys:
            return _error(401, "not_authenticated", "Invalid api key.")
        if faults.throttle is not None:
            wait_s = faults.throttle.wait_s(self.now().timestamp())
            if wait_s is not None:
                return self._throttled(math.ceil(wait_s))
        return None

    def _throttled(self, wait_s: int) -> Response:
        throttle = self.faults.throttle
        message = "Request was throttled."
        if throttle is None or throttle.has_message:
            message += f" Expected available in {wait_s} second{'s' if wait_s != 1 else ''}."
        response = _error(429, "throttled", message)
        if throttle is None or throttle.has_header:
            response.headers["Retry-After"] = str(wait_s)
        return response

    def _item(self, request: Request) -> Response:
        item_id = request.path_params["item_id"]
        if item_id not in self.catalogue.names:
            return _error(404, "not_found", "Not found.")
        lag = timedelta(seconds=self.faults.lag_s)
        return _json(self.catalogue.item_object(item_id, with_variants=True, lag=lag))

    def _items(self, request: Request) -> Response:
        category_id = request.path_params.get("category_id")
        ids = sorted(self.catalogue.names)
        if category_id is not None:
            if category_id not in self.catalogue.categories:
                return _error(404, "not_found", "Not found.")
            ids = [item for item in ids if item in self.catalogue.categories[category_id]]
        lag = timedelta(seconds=self.faults.lag_s)
        rows = [
            self.catalogue.item_object(
                item_id, with_variants=self.faults.lists_variants(item_id), lag=lag
            )
            for item_id in ids
        ]
        for row in rows:
            if "item_variants" in row:
                row["item_variants"] = self.faults.cut_row(row["item_variants"])
        if self.faults.is_endless(category_id):
            response = _endless_page(request, rows)
        else:
            response = _page(request, rows, self.faults)
        if response.status_code == HTTP_200_OK:
            self.faults.after_page(int(request.query_params.get("page", "1")))
        return response

    def _categories(self, request: Request) -> Response:
        ids = sorted(self.catalogue.categories)
        rows = [{"id": category_id, "name": f"Category {category_id}"} for category_id in ids]
        return _page(request, rows, self.faults)


class _Endpoint:
    """One route: it answers, records the call, and breaks the transfer if `Faults` requires it."""

    def __init__(self, api: Api, answer: Callable[[Request], Response]) -> None:
        self._api = api
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        api = self._api
        at = api.now()
        request = Request(scope, receive)
        faults, url = api.faults, str(request.url)
        if faults.cache is not None and (copy := faults.cache.answer(url, at)) is not None:
            api.calls.append(Call(at, request.url.path, copy.status_code))
            await copy(scope, receive, send)
            return
        response, fault = await api.respond(request, self._answer)
        api.calls.append(Call(at, request.url.path, response.status_code))
        skew_s = faults.date_skews_s.pop(0) if faults.date_skews_s else faults.date_skew_s
        response.headers["Date"] = http_date(api.now() + timedelta(seconds=skew_s))
        if faults.cookies:
            response.headers["Set-Cookie"] = f"visit{len(api.calls)}={'x' * 200}; Path=/"
        if faults.cache is not None:
            faults.cache.store(url, response, at)
        if fault in {"reset", "truncate"}:
            # An exception after the beginning of an answer makes uvicorn close the connection.
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status_code,
                    "headers": response.raw_headers,
                }
            )
            if fault == "truncate":
                half = bytes(response.body)[: len(response.body) // 2]
                await send({"type": "http.response.body", "body": half, "more_body": True})
            raise ConnectionResetError("a simulated network fault")
        await response(scope, receive, send)


def _page(request: Request, rows: list[dict[str, Any]], faults: Faults) -> Response:
    query = request.query_params
    try:
        page = int(query.get("page", "1"))
        limit = min(_MAX_LIMIT, int(query.get("limit", str(_DEFAULT_LIMIT))))
    except ValueError:
        return _error(404, "not_found", "Invalid page.")
    pages = max(1, math.ceil(len(rows) / limit))
    if not 1 <= page <= pages:
        return _error(404, "not_found", "Invalid page.")

    def url(number: int) -> object:
        if not 1 <= number <= pages:
            return faults.next_page
        return str(request.url.include_query_params(page=number, limit=limit))

    return _json(
        {
            "paging": {
                "count": len(rows) if faults.counts else None,
                "next": url(page + 1),
                "previous": url(page - 1),
            },
            "data": faults.rows(rows[(page - 1) * limit : page * limit]),
        }
    )


def _endless_page(request: Request, rows: list[dict[str, Any]]) -> Response:
    page, limit = int(request.query_params["page"]), int(request.query_params["limit"])
    shown = rows[(page - 1) * limit : page * limit]
    first = _INVENTED_FROM + page * limit
    invented = [{"id": number} for number in range(first, first + limit - len(shown))]
    following = str(request.url.include_query_params(page=page + 1))
    return _json({"paging": {"count": None, "next": following}, "data": shown + invented})


def _gzip_bomb() -> Response:
    body = gzip.compress(gzip.compress(b" " * 2**24))
    return Response(body, headers={"Content-Encoding": "gzip, gzip"}, media_type="application/json")


def _flood(item_id: int | None) -> Response:
    invented = range(_INVENTED_FROM, _INVENTED_FROM + 10_001)
    variants = [{"id": number, "availability": "in_stock"} for number in invented]
    return _json({"id": item_id, "item_variants": variants})


def _json(document: object, status: int = 200) -> Response:
    return Response(json.dumps(document), status, media_type="application/json")


def _error(status: int, key: str, message: str) -> Response:
    return _json({"error": {"key": key, "status_code": status, "message": message}}, status)


def _with_retry_after(response: Response, seconds: int) -> Response:
    response.headers["Retry-After"] = str(seconds)
    return response


def _html(status: int) -> Response:
    return Response(_HTML.format(f"{status} Error"), status, media_type="text/html")


_FAULT_ANSWERS: dict[Fault | None, Callable[[], Response]] = {
    "500": lambda: _html(500),
    "401": lambda: _error(401, "not_authenticated", "Invalid api key."),
    "403": lambda: _error(403, "permission_denied", "Not allowed."),
    "410": lambda: _error(410, "gone", "Gone."),
    "429": lambda: _error(429, "throttled", "Request was throttled. Expected in 1 second."),
    "html-403": lambda: _html(403),
    "gateway-403": lambda: _json({"message": "Forbidden"}, 403),
    "gateway-404": lambda: _json({"message": "no Route matched with those values"}, 404),
    "retry-403": lambda: _with_retry_after(_error(403, "permission_denied", "Slow down."), 1),
    "retry-503": lambda: _with_retry_after(_html(503), 1),
    "502": lambda: _html(502),
    "503": lambda: _html(503),
    "404": lambda: _error(404, "not_found", "Not found."),
    "html-404": lambda: _html(404),
    "html": lambda: Response(_HTML.format("Welcome"), 200, media_type="text/html"),
    "garbage": lambda: _json({"data": 7, "id": "?"}),
    "bomb": _gzip_bomb,
}
