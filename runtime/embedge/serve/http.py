"""`embedge serve --port`: OpenAI's /v1/embeddings, /v1/models, and /health, as an ASGI app.

Needs the extra `embedge[server]`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from embedge.encoder import Encoder
from embedge.errors import EmbedgeError
from embedge.serve import openai
from embedge.serve.admission import Admission
from embedge.serve.guard import Guard
from embedge.serve.protocol import greeting
from embedge.serve.scheduler import Result, Scheduler

MAX_BODY = 16 * 2**20  # bytes
_BLOCK = 2**16  # characters of an answer that are sent at a time
# Instead of the names of the statuses, which do not say what to do.
_MESSAGES = {
    "Not Found": "no such path; there are /v1/embeddings, /v1/models and /health",
    "Method Not Allowed": "this path has another method; the header Allow says which",
}
_KINDS = {401: "authentication_error", 503: "overloaded_error", 504: "timeout_error"}


@dataclass(frozen=True)
class Limits:
    """Limits on what clients may use.

    Attributes:
        body: bytes of one request.
        seconds: for a request to arrive, then to be encoded, then for its answer to be taken.
        admission: what may be under way at a time.
    """

    body: int = MAX_BODY
    seconds: float = 120
    admission: Admission = field(default_factory=Admission)


def make_app(encoder: Encoder, scheduler: Scheduler, guard: Guard, limits: Limits) -> ASGIApp:
    """The app, which answers for as long as ``scheduler`` is open."""

    about = {"status": "ok", **greeting(encoder)}
    served = openai.model(encoder)

    async def health(request: Request) -> Response:
        return JSONResponse(about)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [served]})

    async def model(request: Request) -> Response:
        if request.path_params["name"] != served["id"]:
            raise HTTPException(404, "this server has no such model; see /v1/models")
        return JSONResponse(served)

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/v1/embeddings", _Embeddings(encoder, scheduler, limits), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _on_http_exception, Exception: _on_bug},
    )
    app.router.redirect_slashes = False  # a client would be sent elsewhere without its body
    return _guarded(app, guard)


def _guarded(app: ASGIApp, guard: Guard) -> ASGIApp:
    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        refusal = guard.check(scope["path"], Request(scope).headers)
        if refusal is None:
            await app(scope, receive, send)
            return
        response = _error(refusal.status, refusal.message, refusal.code)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    return check


class _Share:
    """What one request takes of what may be under way."""

    def __init__(self, admission: Admission) -> None:
        self._admission, self._size = admission, 0
        self.entered = admission.try_enter(0)

    def grow(self, size: int) -> None:
        if not self._admission.try_enter(size, requests=0):
            raise HTTPException(503)
        self._size += size

    def leave(self) -> None:
        self._admission.leave(self._size)


class _Embeddings:
    """POST /v1/embeddings."""

    def __init__(self, encoder: Encoder, scheduler: Scheduler, limits: Limits) -> None:
        self._encoder, self._scheduler, self._limits = encoder, scheduler, limits
        self._model: str = encoder.info["name"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        share = _Share(self._limits.admission)
        if not share.entered:
            await _overloaded()(scope, receive, send)
            return
        try:
            response = await self._response(Request(scope, receive), receive, share)
            async with asyncio.timeout(
                self._limits.seconds
            ):  # else a slow reader would stay forever
                await response(scope, receive, send)
        except (ClientDisconnect, TimeoutError):  # nobody reads the rest of the answer
            pass
        finally:
            share.leave()

    async def _response(self, request: Request, receive: Receive, share: "_Share") -> Response:
        try:
            async with asyncio.timeout(self._limits.seconds):
                body = await self._read(request, share)
            async with asyncio.timeout(self._limits.seconds):
                return await self._encode(body, receive)
        except TimeoutError:
            return _error(504, f"not done in {self._limits.seconds:.0f} s", "timeout")
        except HTTPException as error:
            response = _from_exception(error)
            response.headers["Connection"] = "close"  # the rest of the body is not read
            return response
        except EmbedgeError as error:
            return _error(openai.status(error), str(error), type(error).__name__)

    async def _read(self, request: Request, share: "_Share") -> bytes:
        self._check_headers(request)
        body = bytearray()
        async for chunk in request.stream():
            self._check_size(len(body) + len(chunk))
            share.grow(len(chunk))
            body += chunk
        return bytes(body)

    def _check_headers(self, request: Request) -> None:
        form = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if form != "application/json":
            raise HTTPException(415, "expected Content-Type: application/json")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "expected a body without Content-Encoding; send it as it is")
        self._check_size(int(request.headers.get("content-length", 0)))

    def _check_size(self, size: int) -> None:
        if size > self._limits.body:
            message = f"expected a body of at most {self._limits.body} bytes; send several requests"
            raise HTTPException(413, message)

    async def _encode(self, body: bytes, receive: Receive) -> Response:
        wanted, form = openai.parse_body(self._encoder, body)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result | EmbedgeError] = loop.create_future()

        def done(result: Result | EmbedgeError) -> None:
            loop.call_soon_threadsafe(settle, result)

        def settle(result: Result | EmbedgeError) -> None:
            if not answer.done():
                answer.set_result(result)

        job = self._scheduler.submit(wanted, done)
        leaving = asyncio.ensure_future(receive())  # set when the client disconnects, or never
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
        finally:
            leaving.cancel()
            self._scheduler.cancel(job)
        result = answer.result()
        if isinstance(result, EmbedgeError):
            raise result
        return _response(openai.embeddings(result, form, self._model))


def _response(pieces: Iterator[str]) -> Response:
    blocks = _blocks(pieces)
    first, second = next(blocks), next(blocks, None)
    if second is None:
        return Response(first, media_type="application/json")

    async def stream() -> AsyncIterator[bytes]:
        yield first
        yield second
        for block in blocks:
            yield block
            await asyncio.sleep(0)  # let other connections run

    return StreamingResponse(stream(), media_type="application/json")


def _blocks(pieces: Iterator[str]) -> Iterator[bytes]:
    held: list[str] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= _BLOCK:
            yield "".join(held).encode("ascii")
            held, length = [], 0
    if held:
        yield "".join(held).encode("ascii")


def _error(status: int, message: str, code: str | None = None) -> Response:
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return JSONResponse(openai.error_body(message, kind, code), status)


def _overloaded() -> Response:
    response = _error(503, "too many requests are waiting; try again later", "overloaded")
    response.headers["Retry-After"] = "1"
    return response


def _from_exception(error: HTTPException) -> Response:
    if error.status_code == 503:
        return _overloaded()
    response = _error(error.status_code, _MESSAGES.get(error.detail, error.detail))
    response.headers.update(error.headers or {})  # Allow, where the method was wrong
    return response


async def _on_http_exception(request: Request, error: Any) -> Response:
    return _from_exception(error)


async def _on_bug(request: Request, error: Exception) -> Response:
    return _error(500, f"{type(error).__name__} in the server; its standard error says where")
