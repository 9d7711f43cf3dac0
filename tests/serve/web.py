"""The HTTP server on a thread of this process, at a free port of loopback."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from embedge import Encoder
from embedge.serve.admission import Admission
from embedge.serve.guard import Guard
from embedge.serve.scheduler import Job, Scheduler

from .conftest import PATIENCE


class NotedAdmission(Admission):
    """Tells when a request has been counted out, which is after its answer was sent."""

    def __init__(self, **bounds: int) -> None:
        super().__init__(**bounds)
        self.left = threading.Semaphore(0)

    def leave(self, size: int, requests: int = 1) -> None:
        super().leave(size, requests)
        self.left.release()

    def wait_for_leave(self) -> None:
        assert self.left.acquire(timeout=PATIENCE)


class NotedScheduler(Scheduler):
    """Tells when a request has been cancelled, which also happens after its end."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.cancelled = threading.Event()

    def cancel(self, job: Job) -> None:
        super().cancel(job)
        self.cancelled.set()


@dataclass
class Web:
    """A running server."""

    port: int
    scheduler: NotedScheduler

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", self.port))
        return connection


def request_bytes(texts: list[str]) -> bytes:
    """A request as it goes over the wire."""
    body = json.dumps({"input": texts}).encode()
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection, or breaks it."""
    data = bytearray()
    try:
        while block := connection.recv(2**16):
            data += block
    except ConnectionResetError:
        pass
    return bytes(data)


@contextmanager
def serving(
    encoder: Encoder,
    guard: Guard | None = None,
    *,
    connection_seconds: float = PATIENCE,
    send_buffer: int = 0,
    **limits: Any,
) -> Iterator[Web]:
    """Serve as `embedge serve --port 0` does; ``limits`` are those of `Limits`."""
    import uvicorn

    from embedge.serve.http import Limits, make_app
    from embedge.serve.run import make_config

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        NotedScheduler(encoder) as scheduler,
    ):
        if send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        app = make_app(encoder, scheduler, guard or Guard(), Limits(**limits))
        server = uvicorn.Server(make_config(app, Limits(seconds=connection_seconds)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        port = listener.getsockname()[1]
        thread.start()
        try:
            yield Web(port, scheduler)
        finally:
            server.should_exit = True
            thread.join()
