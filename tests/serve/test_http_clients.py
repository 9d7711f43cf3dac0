"""`embedge serve --port` as a child process, asked by OpenAI's own client; signals."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedge import Encoder

from .conftest import Child, Start, children
from .web import read_all, request_bytes

pytest.importorskip("starlette", reason='needs: python -m pip install "embedge[server]"')
pytest.importorskip("uvicorn", reason='needs: python -m pip install "embedge[server]"')

TOKENS = "expected strings, got token ids"


@pytest.fixture(scope="module")
def server(wide_file: Path) -> Iterator[str]:
    """The URL of a child that wants a key."""
    with children() as start:
        child = start("--port", "0", "--model", str(wide_file), EMBEDGE_API_KEY="key")
        yield child.read()["url"]


@pytest.fixture
def openai() -> Any:
    return pytest.importorskip("openai", reason="needs: python -m pip install --group dev")


@pytest.fixture
def client(openai: Any, server: str) -> Iterator[Any]:
    httpx = pytest.importorskip("httpx", reason="needs: python -m pip install --group dev")
    with openai.OpenAI(
        base_url=f"{server}/v1",
        api_key="key",
        max_retries=0,
        http_client=httpx.Client(trust_env=False),
    ) as client:
        yield client


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])  # {}: asks for base64
def test_vectors_through_openai(client: Any, wide_file: Path, options: dict[str, Any]) -> None:
    encoder, texts = Encoder(wide_file, threads=1), ["a b", "", "naïve 🙂"]
    answer = client.embeddings.create(model=encoder.info["name"], input=texts, **options)
    assert [item.embedding for item in answer.data] == encoder.encode(texts).tolist()
    tokens = sum(encoder.count_tokens(texts))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
    assert answer.model == encoder.info["name"]


def test_dimensions_and_prompts_through_openai(client: Any, wide_file: Path) -> None:
    encoder = Encoder(wide_file, threads=1, dim=5)
    answer = client.embeddings.create(
        model=encoder.info["name"],
        input="a b",
        dimensions=5,
        extra_body={"input_type": "query"},
    )
    assert answer.data[0].embedding == encoder.encode("a b", prompt="query").tolist()


def test_models_through_openai(client: Any, wide_file: Path) -> None:
    assert [model.id for model in client.models.list()] == [Encoder(wide_file).info["name"]]


def test_errors_through_openai(client: Any, openai: Any, wide_file: Path) -> None:
    name = Encoder(wide_file).info["name"]
    with pytest.raises(openai.BadRequestError, match=TOKENS):
        client.embeddings.create(model=name, input=[1, 2, 3])
    with pytest.raises(openai.NotFoundError, match="this server has one model"):
        client.embeddings.create(model="text-embedding-3-small", input="a")
    with pytest.raises(openai.AuthenticationError, match="expected the server's API key"):
        client.with_options(api_key="kez").embeddings.create(model=name, input="a")


def test_the_first_line_has_the_url_and_what_is_served(
    start: Start, tiny_file: Path, encoder: Encoder
) -> None:
    first = start("--port", "0", "--model", str(tiny_file)).read()
    assert first["url"].startswith("http://127.0.0.1:")
    assert (first["fingerprint"], first["dim"]) == (encoder.fingerprint, 2)


def serve(*arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a server that does not start."""
    command = [sys.executable, "-m", "embedge", "serve", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stderr


def test_other_machines_need_a_key(tiny_file: Path) -> None:
    status, shown = serve("--port", "0", "--host", "0.0.0.0", "--model", str(tiny_file))
    assert status == 2
    assert "is reached by other machines: set EMBEDGE_API_KEY or --api-key" in shown


def test_a_port_in_use(tiny_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, shown = serve("--port", str(port), "--model", str(tiny_file))
    assert status == 2
    assert f"cannot listen at 127.0.0.1 port {port}" in shown


# The server in a program that says when a micro-batch begins, and runs it at a line of input; and
# when it first waits for nothing but the network.
GATED = """
import selectors, sys
from embedge import Encoder
from embedge.serve.guard import Guard
from embedge.serve.run import Address, serve_http

encoder = Encoder(sys.argv[1], threads=1)
pipeline = encoder._pipeline
run, select = pipeline.run, selectors.DefaultSelector.select

class Gated:
    settings, tokenize, finish = pipeline.settings, pipeline.tokenize, pipeline.finish
    text_vectors = pipeline.text_vectors
    def run(self, ids):
        print("runs", flush=True)
        sys.stdin.readline()
        return run(ids)

def noted(self, timeout=None):
    if timeout is None:
        print("blocks", flush=True)
        selectors.DefaultSelector.select = select
    return select(self, timeout)

encoder._pipeline = Gated()
selectors.DefaultSelector.select = noted
serve_http(encoder, Address(), Guard(), lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def gated_child(start: Start, tiny_file: Path) -> Child:
    return start(program=[sys.executable, "-c", GATED, str(tiny_file)])


def test_an_idle_server_blocks_without_a_timeout(gated_child: Child) -> None:
    lines = gated_child.stdout.readline, gated_child.stdout.readline
    assert lines[0]().startswith(b"http://")
    assert lines[1]() == b"blocks\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM: run on Linux or macOS")
def test_sigterm_finishes_what_runs(gated_child: Child, encoder: Encoder) -> None:
    port = int(gated_child.stdout.readline().rpartition(b":")[2])
    assert gated_child.stdout.readline() == b"blocks\n"
    with ThreadPoolExecutor() as pool, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request_bytes(["a b"]))
        answer = pool.submit(read_all, connection)
        assert gated_child.stdout.readline() == b"runs\n"
        gated_child.process.send_signal(signal.SIGTERM)
        while is_listening(port):
            pass
        gated_child.send(b"\n")
        head, _, body = answer.result().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body)["data"][0]["embedding"] == encoder.encode("a b").tolist()
    assert gated_child.stdout.read() == b"ended\n"
    assert gated_child.process.wait() == 0


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM: run on Linux or macOS")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_an_idle_server(start: Start, tiny_file: Path, number: int) -> None:
    child = start("--port", "0", "--model", str(tiny_file))
    child.read()
    child.process.send_signal(number)
    assert child.process.wait() == 0
