"""uvicorn around the app: a socket, signals, and an orderly shutdown.

Needs the extra `embedge[server]`. uvicorn finds most of its parts by names in strings; those that
are used are imported here by name, so that bundlers such as PyInstaller see them.
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn
import uvicorn.lifespan.off

from embedge.encoder import Encoder
from embedge.errors import OptionError
from embedge.serve.connection import Connection
from embedge.serve.guard import Guard, is_loopback
from embedge.serve.http import Limits, make_app
from embedge.serve.scheduler import Scheduler

_MAX_CONNECTIONS = 1000  # open ones, idle or not


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0 is any free one."""

    host: str = "127.0.0.1"
    port: int = 0


def serve_http(
    encoder: Encoder, address: Address, guard: Guard, ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that have come are answered before it returns.

    Args:
        encoder: what encodes.
        address: where to listen.
        guard: whom to answer.
        ready: called with the URL once the server listens.

    Raises:
        OptionError: the address cannot be listened at, or others would reach it without a key.
    """
    if not is_loopback(address.host) and guard.api_key is None:
        raise OptionError(
            f"host {address.host!r} is reached by other machines: set EMBEDGE_API_KEY or --api-key"
        )
    with _listen(address) as listener, Scheduler(encoder) as scheduler:
        limits = Limits()
        config = make_config(make_app(encoder, scheduler, guard, limits), limits)
        shown = f"[{address.host}]" if ":" in address.host else address.host
        url = f"http://{shown}:{listener.getsockname()[1]}"
        asyncio.run(_serve(config, listener, lambda: ready(url)))


def make_config(app: Any, limits: Limits) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=partial(Connection, seconds=limits.seconds),
        ws="none",
        lifespan="off",
        log_config=None,  # warnings go to standard error, the rest nowhere
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(limits.seconds),
    )


async def _serve(
    config: uvicorn.Config, listener: socket.socket, ready: Callable[[], None]
) -> None:
    # The steps of Server.serve() but its main loop, which wakes up ten times a second.
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process
        loop.call_soon_threadsafe(stop.set)

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last on Windows
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    await server.startup(sockets=[listener])
    ready()
    await stop.wait()
    await server.shutdown(sockets=[listener])


def _listen(address: Address) -> socket.socket:
    if not 0 <= address.port <= 65535:
        raise OptionError(f"expected a port from 0 to 65535, got {address.port}")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise OptionError(
            f"cannot listen at {address.host} port {address.port}: {error}; use another --port"
        ) from error
