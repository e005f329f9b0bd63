"""Models over HTTP: recommendations, sessions fed click by click, and the page that shows both.

An ASGI application, for any ASGI server; serve.py runs it on Uvicorn. The models are those of
served.py. They are read once, before it starts. Scoring runs in as many threads as there are cores.
docs/http.md documents the requests. Starlette is an extra.
"""

from __future__ import annotations

import json
import math
import os
import re
from asyncio import Lock
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gru4rec_np.console.served import Served
from gru4rec_np.errors import InputError
from gru4rec_np.models.base import Model
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.hybrid import Hybrid

T = TypeVar("T")

MOST_BYTES = 2**20  # of a request's body
MOST_SECONDS = 30  # for a body to arrive
MOST_CLICKS = 1000  # of a session
MOST_K = 1000
MOST_SHOWN = 50  # clicks of a session on the page
SESSION_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")

PAGE = Path(__file__).with_name("page.html")
# The page is one file: nothing is loaded from elsewhere, and no other site may frame it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


# --- what comes in --------------------------------------------------------------------------------


class Refused(Exception):
    """A request that is not answered: the HTTP status, and one line that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _shown(value: Any) -> str:
    """A value of a request for a message, cut to 60 characters."""
    if isinstance(value, list | dict):  # perhaps nested too deeply to be written
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


async def _body(request: Request, allowed: Sequence[str], required: str) -> dict[str, Any]:
    """The JSON object of a request.

    Args:
        allowed: names of its fields. required: one that must be there.

    Raises:
        Refused: it is too large or too slow, no JSON, no object, or has other fields.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, f"Content-Type: must be application/json, not {_shown(kind)}")
    raw = bytearray()
    with anyio.move_on_after(MOST_SECONDS) as time_limit:
        async for part in request.stream():
            raw += part
            if len(raw) > MOST_BYTES:
                raise Refused(413, f"body: at most {MOST_BYTES:,} bytes")
    if time_limit.cancelled_caught:
        raise Refused(408, f"body: not complete after {MOST_SECONDS} seconds")
    try:
        value = json.loads(raw.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Refused(400, f"body: not UTF-8, at byte {error.start}") from None
    except RecursionError:
        raise Refused(400, "body: not JSON that can be read: nested too deeply") from None
    except ValueError as error:  # also a whole number of too many digits
        raise Refused(400, f"body: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(422, f"body: must be an object with the field {required}")
    _require_known(value, allowed, "body: unknown field")
    if required not in value:
        raise Refused(422, f"body: the field {required} is missing")
    return value


def _require_known(names: Iterable[str], allowed: Sequence[str], unknown: str) -> None:
    for name in names:
        if name not in allowed:
            raise Refused(422, f"{unknown} {_shown(name)}; allowed are {', '.join(allowed)}")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _item(value: Any, what: str) -> Any:
    # 1e999 is read as infinity, which JSON cannot give back.
    if not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
        raise Refused(422, f"{what}: must be an item id, text or a number, not {_shown(value)}")
    return value


def _items(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(422, f"{what}: must be a list of item ids, not {_shown(value)}")
    return [_item(item, f"{what}[{i}]") for i, item in enumerate(value)]


def _session(value: Any, most: int = MOST_CLICKS) -> list[Any]:
    session = _items(value, "session")
    if not session:
        raise Refused(422, "session: must have at least one item")
    if len(session) > most:
        raise Refused(422, f"session: at most {most:,} items, not {len(session):,}")
    return session


def _k(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_K:
        raise Refused(422, f"k: must be a whole number from 1 to {MOST_K}, not {_shown(value)}")
    return value


def _choice(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments `k`, `exclude` and `candidates` of `Model.recommend`."""
    choice: dict[str, Any] = {"k": _k(values.get("k", 20))}
    if values.get("exclude") is not None:
        seen = values["exclude"] == "seen"
        choice["exclude"] = "seen" if seen else _items(values["exclude"], 'exclude, if not "seen"')
    if values.get("candidates") is not None:
        choice["candidates"] = _items(values["candidates"], "candidates")
    return choice


def _query(request: Request, allowed: Sequence[str]) -> dict[str, Any]:
    """The values of a request's query, `k` as a number.

    Raises:
        Refused: a name that is not allowed, or k is no number.
    """
    values: dict[str, Any] = dict(request.query_params)
    _require_known(values, allowed, "query: unknown name")
    if "k" in values:
        text = values["k"]
        values["k"] = _k(int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text)
    return values


# --- what goes out --------------------------------------------------------------------------------


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # ASCII only: an id may be text that UTF-8 cannot encode, such as half of a surrogate pair.
    content = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(content, status, headers, "application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    """Errors as {"error": one line}."""
    if isinstance(error, HTTPException):  # of the router
        what = f"{request.method} {_shown(request.url.path)}"
        answer = {"error": f"{what}: {error.detail.lower()}"}
        return _json(answer, error.status_code, error.headers)  # they say what is allowed
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it
    status = error.status if isinstance(error, Refused) else 422
    # What is left of the body is not read.
    headers = {"Connection": "close"} if status in (408, 413, 415) else {}
    return _json({"error": " ".join(str(error).split())}, status, headers)


class _Hosts:
    """Middleware that refuses requests whose Host header has another name, as JSON.

    The names are compared by Starlette's middleware, whose own answer is plain text and goes
    nowhere.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, list(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = False

        async def inner(*_: Any) -> None:
            nonlocal allowed
            allowed = True

        async def nowhere(message: Message) -> None:
            pass

        await TrustedHostMiddleware(inner, self.hosts)(scope, receive, nowhere)
        if allowed:
            await self.app(scope, receive, send)
            return
        host = _shown(Headers(scope=scope).get("host", ""))
        answer = {"error": f"Host: {host} is not allowed; serve --allow-host adds names"}
        await _json(answer, 400)(scope, receive, send)


# --- the application ------------------------------------------------------------------------------


class _Live:
    """A session that clients feed: a `LiveSession`, or its items for a model that has none."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.live = model.session() if isinstance(model, GRU4Rec | Hybrid) else None
        self.items: list[Any] = []
        self.lock = Lock()  # clicks count in the order in which they came

    def feed(self, item: Any) -> bool:
        """Take in a click; False if the model does not know the item."""
        known = str(item) in self.model._index
        if known:
            if self.live is not None:
                self.live.feed(item)
            self.items.append(item)
        return known

    def recommend(self, **choice: Any) -> list[tuple[Any, float]]:
        """As `Model.recommend`."""
        if self.live is not None:
            return self.live.recommend(**choice)
        return self.model.recommend(self.items, **choice)


class Service:
    """The requests. One object serves one application.

    Args:
        served: from `served.load_runs`, at least one; the first is the default.
        most_sessions: live sessions kept; the least recently used goes when there is one more.
    """

    def __init__(self, served: Mapping[str, Served], most_sessions: int) -> None:
        self.served, self.most_sessions = dict(served), most_sessions
        self._sessions: OrderedDict[tuple[str, str], _Live] = OrderedDict()
        self._threads: anyio.CapacityLimiter | None = None

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        """Call in a thread, so that the loop stays free for other requests."""
        if self._threads is None:  # made inside of the running loop
            self._threads = anyio.CapacityLimiter(os.cpu_count() or 1)
        return await anyio.to_thread.run_sync(call, *args, limiter=self._threads)

    def _model(self, values: Mapping[str, Any]) -> Served:
        name = values.get("model", next(iter(self.served)))
        if not isinstance(name, str) or name not in self.served:
            names = ", ".join(self.served)
            raise Refused(404, f"model: must be one of {names}, not {_shown(name)}")
        return self.served[name]

    async def page(self, request: Request) -> Response:
        """GET /"""
        return Response(PAGE.read_bytes(), 200, PAGE_HEADERS, "text/html")

    async def health(self, request: Request) -> Response:
        """GET /health"""
        sessions = len(self._sessions)
        return _json({"status": "ok", "models": list(self.served), "sessions": sessions})

    async def models(self, request: Request) -> Response:
        """GET /models"""
        return _json({"models": [one.about() for one in self.served.values()]})

    async def items(self, request: Request) -> Response:
        """GET /items?model=&search=&skip=&k=: items whose id or title has all words of a search."""
        values = _query(request, ("model", "search", "skip", "k"))
        one, k = self._model(values), values.get("k", 20)
        skip = values.get("skip", "0")
        if not re.fullmatch(r"[0-9]{1,9}", skip):
            raise Refused(422, f"skip: must be a whole number >= 0, not {_shown(skip)}")
        found = await self._run(one.find, values.get("search", ""), int(skip), k)
        return _json({"model": one.name, "items": found})

    async def recommend(self, request: Request) -> Response:
        """POST /recommend"""
        fields = ("session", "k", "exclude", "candidates", "model")
        values = await _body(request, fields, "session")
        one, session, choice = self._model(values), _session(values["session"]), _choice(values)
        best = await self._run(lambda: one.model.recommend(session, **choice))
        answer = {"model": one.name, "items": one.ranked(best), "ignored": one.unknown(session)}
        return _json(answer)

    async def inside(self, request: Request) -> Response:
        """POST /inside: for the page, the ranking and what the model computes on the way to it."""
        values = await _body(request, ("session", "k", "model"), "session")
        session, k = _session(values["session"], MOST_SHOWN), _k(values.get("k", 20))
        one = self._model(values)
        return _json(await self._run(one.inside, session, k))

    async def map(self, request: Request) -> Response:
        """GET /map?model=: for the page, the plane in which it draws hidden states."""
        one = self._model(_query(request, ("model",)))
        return _json(await self._run(one.map))

    def _live(self, request: Request, one: Served, make: bool) -> _Live:
        """The live session of a request, as the most recently used one."""
        name = request.path_params["name"]
        if not SESSION_ID.fullmatch(name):
            raise Refused(422, f"session id: 1 to 128 of A-Z a-z 0-9 . _ ~ -, not {_shown(name)}")
        key = one.name, name
        if key not in self._sessions:
            if not make:
                raise Refused(
                    404,
                    f"session {name}: {one.name} has no live session of that id; it may have been "
                    "dropped",
                )
            self._sessions[key] = _Live(one.model)
            if len(self._sessions) > self.most_sessions:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        return self._sessions[key]

    async def click(self, request: Request) -> Response:
        """POST /sessions/ID/clicks"""
        values = await _body(request, ("item", "model"), "item")
        one, item = self._model(values), _item(values["item"], "item")
        live = self._live(request, one, make=True)
        async with live.lock:
            if len(live.items) >= MOST_CLICKS:
                raise Refused(422, f"session: at most {MOST_CLICKS:,} items")
            known = await self._run(live.feed, item)
            return _json({"model": one.name, "known": known, "clicks": len(live.items)})

    async def recommend_live(self, request: Request) -> Response:
        """GET /sessions/ID/recommend?k=&exclude=seen&model="""
        values = _query(request, ("k", "exclude", "model"))
        if values.get("exclude", "seen") != "seen":
            raise Refused(422, f"exclude: must be seen, not {_shown(values['exclude'])}")
        one, choice = self._model(values), _choice(values)
        live = self._live(request, one, make=False)
        async with live.lock:
            best = await self._run(lambda: live.recommend(**choice))
            return _json({"model": one.name, "items": one.ranked(best), "clicks": len(live.items)})

    async def forget(self, request: Request) -> Response:
        """DELETE /sessions/ID?model="""
        one = self._model(_query(request, ("model",)))
        self._live(request, one, make=False)
        del self._sessions[one.name, request.path_params["name"]]
        return Response(status_code=204)


def application(
    served: Mapping[str, Served], hosts: Sequence[str], most_sessions: int = 10_000
) -> Starlette:
    """The ASGI application.

    Args:
        served: from `served.load_runs`. hosts: names that a request's Host header may have.
        most_sessions: see `Service`.
    """
    service = Service(served, most_sessions)
    app = Starlette(
        routes=[
            Route("/", service.page),
            Route("/health", service.health),
            Route("/models", service.models),
            Route("/items", service.items),
            Route("/map", service.map),
            Route("/recommend", service.recommend, methods=["POST"]),
            Route("/inside", service.inside, methods=["POST"]),
            Route("/sessions/{name}/clicks", service.click, methods=["POST"]),
            Route("/sessions/{name}/recommend", service.recommend_live),
            Route("/sessions/{name}", service.forget, methods=["DELETE"]),
        ],
        middleware=[Middleware(_Hosts, hosts=hosts)],
        exception_handlers={
            error: _refuse for error in (Refused, InputError, HTTPException, ClientDisconnect)
        },
    )
    app.router.redirect_slashes = False  # a path with a slash too many is not found
    return app
