"""`embedge serve --port`: the app in uvicorn, asked by httpx and by bare sockets."""

import base64
import gzip
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedge import Encoder, __version__
from embedge.serve.guard import Guard
from embedge.serve.requests import MAX_TEXTS

from .conftest import GatedPipeline
from .web import NotedAdmission, Web, request_bytes, serving

pytest.importorskip("starlette", reason='needs: python -m pip install "embedge[server]"')
pytest.importorskip("uvicorn", reason='needs: python -m pip install "embedge[server]"')
httpx = pytest.importorskip("httpx", reason="needs: python -m pip install --group dev")

EMBEDDINGS = "/v1/embeddings"


def client(url: str) -> Any:
    return httpx.Client(base_url=url, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def web(wide_file: Path) -> Iterator[Web]:
    with serving(Encoder(wide_file, threads=2)) as web:
        yield web


@pytest.fixture
def http(web: Web) -> Iterator[Any]:
    with client(web.url) as http:
        yield http


@pytest.fixture
def wide(wide_file: Path) -> Encoder:
    return Encoder(wide_file, threads=1)


def vectors(response: Any) -> list[list[float]]:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] for item in data]


def test_an_answer_in_full(http: Any, wide: Encoder) -> None:
    response = http.post(EMBEDDINGS, json={"input": ["a b", "c"], "model": wide.info["name"]})
    expected = wide.encode(["a b", "c"]).tolist()
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": expected[0]},
            {"object": "embedding", "index": 1, "embedding": expected[1]},
        ],
        "model": wide.info["name"],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},  # [CLS] a b [SEP], [CLS] c [SEP]
        "truncated": 0,
    }


def test_a_string_and_a_list_of_one(http: Any, wide: Encoder) -> None:
    expected = [wide.encode("a b").tolist()]
    assert vectors(http.post(EMBEDDINGS, json={"input": "a b"})) == expected
    assert vectors(http.post(EMBEDDINGS, json={"input": ["a b"]})) == expected
    assert vectors(http.post(EMBEDDINGS, json={"input": []})) == []


def test_base64_holds_the_floats(http: Any) -> None:
    texts = ["a b c", "", "naïve 🙂"]
    floats = vectors(http.post(EMBEDDINGS, json={"input": texts, "encoding_format": "float"}))
    coded = vectors(http.post(EMBEDDINGS, json={"input": texts, "encoding_format": "base64"}))
    for numbers, text in zip(floats, coded, strict=True):
        assert list(struct.unpack("<16f", base64.b64decode(text))) == numbers  # type: ignore[arg-type]


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"dimensions": 5}, {"dim": 5}),
    ({"prompt": "query"}, {"prompt": "query"}),
    ({"input_type": "query"}, {"prompt": "query"}),
    ({"input_type": "document"}, {"prompt": "passage"}),
    ({"overflow": "mean"}, {"overflow": "mean"}),
    ({"user": "someone"}, {}),
    ({"dimensions": None, "prompt": None, "overflow": None, "user": None}, {}),
]


@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
@pytest.mark.parametrize(("fields", "options"), OPTIONS)
def test_options(
    http: Any, wide_file: Path, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    text = "a b c c c c b a a " * 2
    encoder = Encoder(wide_file, threads=1, dim=options.pop("dim", None))
    response = http.post(EMBEDDINGS, json={"input": text, **fields})
    assert vectors(response) == [encoder.encode(text, **options).tolist()]
    assert response.json()["truncated"] == (0 if "overflow" in options else 1)


LIST = {"input": ["a"]}
BAD: list[tuple[Any, int, str]] = [
    (b"", 400, "expected a JSON object: Expecting value"),
    (b"{", 400, "expected a JSON object"),
    (b"[1]", 400, "expected a JSON object, got a list"),
    (b'{"input": "\xff"}', 400, "expected UTF-8, got byte 0xff"),
    (b'{"input": NaN}', 400, "NaN is not JSON"),
    (b"[" * 100_000, 400, "nested too deep"),
    ({}, 400, "input: expected a string or a list of strings, got null"),
    ({"input": {"a": 1}}, 400, "input: expected a string or a list of strings, got an object"),
    ({"input": [1, 2, 3]}, 400, "expected strings, got token ids"),
    ({"input": [[1, 2], [3]]}, 400, "check_embedding_ctx_length=False"),
    ({"input": [True]}, 400, "text 0: expected a string, got a boolean"),
    ({"input": ["a", 1]}, 400, "text 1: expected a string, got a number"),
    ({"input": ["a", None]}, 400, "text 1: expected a string, got null"),
    ({"input": ["a", "\ud800"]}, 400, "text 1 holds a lone surrogate"),
    ({"input": [""] * (MAX_TEXTS + 1)}, 400, f"at most {MAX_TEXTS} texts, got {MAX_TEXTS + 1}"),
    ({**LIST, "dimensions": 0}, 400, "dimensions: expected an integer from 1 to 16, got 0"),
    ({**LIST, "dimensions": 17}, 400, "expected an integer from 1 to 16, got 17"),
    ({**LIST, "dimensions": True}, 400, "from 1 to 16, got true"),
    ({**LIST, "dimensions": 2.5}, 400, "from 1 to 16, got 2.5"),
    ({**LIST, "encoding_format": "hex"}, 400, "expected 'float' or 'base64', got \"hex\""),
    ({**LIST, "input_type": "x"}, 400, "expected 'query' or 'document', got \"x\""),
    ({**LIST, "input_type": "query", "prompt": "query"}, 400, "prompt or input_type, got both"),
    ({**LIST, "prompt": "x"}, 400, "no prompt named 'x'"),
    ({**LIST, "overflow": "cut"}, 400, "'cut'"),
    ({**LIST, "stream": True}, 400, "unknown field 'stream'"),
    ({**LIST, "model": "gpt"}, 404, 'got "gpt"; this server has one model'),
    ({"input": "a " * 20, "overflow": "error"}, 400, "text 0 has more than 16 tokens"),
]


@pytest.mark.parametrize(("body", "status", "message"), BAD)
def test_bad_bodies_are_answered(http: Any, body: Any, status: int, message: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = http.post(EMBEDDINGS, content=data, headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, "invalid_request_error")
    assert message in error["message"]
    assert len(error["message"]) < 500


def test_other_bodies_than_json_are_refused(http: Any) -> None:
    response = http.post(EMBEDDINGS, content=b'{"input": "a"}')  # as a form on a web page can
    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["error"]["message"]
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = http.post(EMBEDDINGS, content=gzip.compress(b'{"input": "a"}'), headers=headers)
    assert response.status_code == 415
    assert "without Content-Encoding" in response.json()["error"]["message"]


def test_paths_and_methods(http: Any, wide: Encoder) -> None:
    name = wide.info["name"]
    for path in ("/nothing", f"{EMBEDDINGS}/", "//health"):
        nothing = http.get(path)
        assert nothing.status_code == 404
        assert "there are /v1/embeddings" in nothing.json()["error"]["message"]
    assert http.get("/v1/models/other").json()["error"]["message"].startswith("this server has no")
    wrong = http.get(EMBEDDINGS)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert "the header Allow says which" in wrong.json()["error"]["message"]
    model = {"id": name, "object": "model", "created": 0, "owned_by": "embedge"}
    assert http.get("/v1/models").json() == {"object": "list", "data": [model]}
    assert http.get(f"/v1/models/{name}").json() == model
    health = http.get("/health").json()
    assert health["status"] == "ok"
    assert health["fingerprint"] == wide.fingerprint
    assert (health["version"], health["protocol"], health["dim"]) == (__version__, 1, 16)


def test_a_key_and_foreign_names(encoder: Encoder) -> None:
    with serving(encoder, Guard(api_key="key")) as web, client(web.url) as http:
        refused = http.post(EMBEDDINGS, json=LIST)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["error"]["type"] == "authentication_error"
        allowed = http.post(EMBEDDINGS, json=LIST, headers={"Authorization": "Bearer key"})
        assert allowed.status_code == 200
        assert http.get("/health").status_code == 200
        assert http.get("/health", headers={"Origin": "https://evil.example"}).status_code == 403
        assert http.get("/health", headers={"Host": "evil.example"}).status_code == 403


def test_bodies_that_are_too_long(encoder: Encoder) -> None:
    with serving(encoder, body=100) as web, client(web.url) as http:
        announced = http.post(EMBEDDINGS, json={"input": "a" * 100})
        assert announced.status_code == 413
        assert "at most 100 bytes" in announced.json()["error"]["message"]
        unannounced = http.post(
            EMBEDDINGS,
            content=iter([b'{"input": "', b"a" * 100, b'"}']),
            headers={"Content-Type": "application/json"},
        )
        assert unannounced.status_code == 413
        assert http.post(EMBEDDINGS, json=LIST).status_code == 200


def test_too_many_requests_at_a_time(encoder: Encoder, gated: GatedPipeline) -> None:
    admission = NotedAdmission(requests=1)
    with (
        serving(encoder, admission=admission) as web,
        client(web.url) as http,
        ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(http.post, EMBEDDINGS, json=LIST)
        gated.wait_for_batch()
        refused = http.post(EMBEDDINGS, json=LIST)
        gated.let_through()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["type"] == "overloaded_error"
        assert first.result().status_code == 200
        admission.wait_for_leave()
        assert http.post(EMBEDDINGS, json=LIST).status_code == 200


def test_too_many_bytes_at_a_time(encoder: Encoder) -> None:
    admission = NotedAdmission(size=20)
    with serving(encoder, admission=admission) as web, client(web.url) as http:
        for _ in range(3):
            refused = http.post(EMBEDDINGS, json={"input": "a" * 20})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            admission.wait_for_leave()
        assert http.post(EMBEDDINGS, json=LIST).status_code == 200


def test_a_request_that_takes_too_long(encoder: Encoder, gated: GatedPipeline) -> None:
    with serving(encoder, seconds=0.2) as web, client(web.url) as http:
        response = http.post(EMBEDDINGS, json=LIST)
        running = set(web.scheduler._active)
        gated.let_through()
    assert response.status_code == 504
    assert response.json()["error"]["type"] == "timeout_error"
    assert running == set()  # cancelled


def test_a_fault_of_the_model_is_answered(encoder: Encoder, gated: GatedPipeline) -> None:
    gated.let_through()
    gated.fault = RuntimeError("a fault")
    with serving(encoder) as web, client(web.url) as http:
        response = http.post(EMBEDDINGS, json=LIST)
        assert response.status_code == 500
        assert response.json()["error"]["message"] == "RuntimeError: a fault"
        gated.fault = None
        assert http.post(EMBEDDINGS, json=LIST).status_code == 200


def test_the_request_of_a_client_that_disconnects_is_cancelled(
    encoder: Encoder, gated: GatedPipeline
) -> None:
    with serving(encoder) as web, client(web.url) as http:
        with web.connect() as leaving:
            leaving.sendall(request_bytes(["a b c a"] * 1000))
            gated.wait_for_batch()
        assert web.scheduler.cancelled.wait(60)
        gated.let_through()
        assert http.post(EMBEDDINGS, json=LIST).status_code == 200
    assert len(gated.batches) == 2


def test_a_short_request_overtakes_a_long_one(encoder: Encoder, gated: GatedPipeline) -> None:
    with serving(encoder) as web, client(web.url) as http, ThreadPoolExecutor() as pool:
        long = pool.submit(http.post, EMBEDDINGS, json={"input": ["a b c a"] * 1000})
        gated.wait_for_batch()
        short = pool.submit(http.post, EMBEDDINGS, json=LIST)
        gated.let_through(1)
        while len(gated.batches[-1][0]) != 3:  # the short one's, which is [CLS] a [SEP]
            gated.wait_for_batch()
            gated.let_through(1)
        assert short.result().status_code == 200
        assert not long.done()
        gated.let_through()
        assert len(vectors(long.result())) == 1000
