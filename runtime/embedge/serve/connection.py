"""A uvicorn connection that answers in JSON, and closes when its client is idle for too long.

Needs the extra `embedge[server]`.
"""

import asyncio
import json
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from embedge.serve.openai import error_body


class Connection(H11Protocol):  # type: ignore[misc]  # an extra, so mypy may not see its types
    """Closes itself after ``seconds`` of waiting for headers, or for its client to take an answer.

    uvicorn itself waits forever.
    """

    def __init__(self, *arguments: Any, seconds: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._seconds = seconds
        self._to_send: asyncio.TimerHandle | None = None  # a request
        self._to_take: asyncio.TimerHandle | None = None  # an answer

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Start waiting for a request."""
        # asyncio leaves this out, as sockets of socket.create_server do not say that they are TCP:
        # an answer's body would wait 40 ms until the client has acknowledged its headers.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        """Keep waiting for a request until its headers are complete."""
        super().data_received(data)
        self._watch_headers()

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP with an error in the usual JSON form, and close."""
        body = json.dumps(error_body(msg, "invalid_request_error", "invalid_http")).encode("ascii")
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def pause_writing(self) -> None:
        """Wait until the client reads what was written."""
        super().pause_writing()
        self._to_take = self._abort_later()

    def resume_writing(self) -> None:
        """The client has read most of it."""
        super().resume_writing()
        _cancel(self._to_take)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        _cancel(self._to_send)
        _cancel(self._to_take)
        super().connection_lost(exc)

    def _watch_headers(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            _cancel(self._to_send)
            self._to_send = None
        elif self._to_send is None:
            self._to_send = self._abort_later()

    def _abort_later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._seconds, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
