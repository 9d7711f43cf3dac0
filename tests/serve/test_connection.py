"""Connections of `embedge serve --port`: what is not HTTP, and clients that take their time."""

import json
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import Encoder

from .web import NotedAdmission, read_all, request_bytes, serving

pytest.importorskip("starlette", reason='needs: python -m pip install "embedge[server]"')
pytest.importorskip("uvicorn", reason='needs: python -m pip install "embedge[server]"')
httpx = pytest.importorskip("httpx", reason="needs: python -m pip install --group dev")

EMBEDDINGS = "/v1/embeddings"
LIST = {"input": ["a"]}


def client(url: str) -> Any:
    return httpx.Client(base_url=url, trust_env=False, timeout=60)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",  # TLS
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # no Host
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_answered_in_json(encoder: Encoder, data: bytes) -> None:
    with serving(encoder) as web, web.connect() as connection:
        connection.sendall(data)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n")
    assert json.loads(body)["error"]["code"] == "invalid_http"


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_headers(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedge.serve.connection import Connection

    made = Connection.connection_made
    found: list[int] = []

    def noted(self: Any, transport: Any) -> None:
        made(self, transport)
        connection = transport.get_extra_info("socket")
        found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(Connection, "connection_made", noted)
    with serving(encoder) as web, client(web.url) as http:
        assert http.get("/health").status_code == 200
    assert [bool(value) for value in found] == [True]


def test_a_slow_reader_holds_nobody_up_and_gets_everything(wide_file: Path) -> None:
    encoder, texts = Encoder(wide_file, threads=1), ["a b c a", "b"] * 500
    with (
        serving(encoder, send_buffer=4096) as web,
        client(web.url) as http,
        web.connect(receive_buffer=4096) as slow,
    ):
        slow.sendall(request_bytes(texts))
        for _ in range(3):
            assert http.post(EMBEDDINGS, json=LIST).status_code == 200
        head, _, body = read_all(slow).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    answer = json.loads(unchunked(body))
    got = np.array([item["embedding"] for item in answer["data"]], np.float32)
    assert np.array_equal(got, pickle.loads(pickle.dumps(encoder)).encode(texts))


def unchunked(body: bytes) -> bytes:
    whole = bytearray()
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return bytes(whole)
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def test_a_reader_that_takes_nothing_is_left(wide_file: Path) -> None:
    admission = NotedAdmission()
    options = {"connection_seconds": 1, "send_buffer": 4096, "admission": admission}
    with (
        serving(Encoder(wide_file, threads=1), **options) as web,
        web.connect(receive_buffer=4096) as stuck,
    ):
        stuck.sendall(request_bytes(["a b c a"] * 1000))
        admission.wait_for_leave()
        assert not read_all(stuck).endswith(b"\r\n0\r\n\r\n")


def test_a_client_that_asks_nothing_is_left(encoder: Encoder) -> None:
    with (
        serving(encoder, connection_seconds=0.1) as web,
        web.connect() as silent,
        web.connect() as slow,
    ):
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localh")
        assert read_all(silent) == b""
        assert read_all(slow) == b""
