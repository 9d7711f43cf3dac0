"""`embedge serve --stdio` as a child process, and its server in this one where order matters."""

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from embedge import Encoder, __version__
from embedge.serve.protocol import MAX_LINE
from embedge.serve.requests import MAX_TEXTS
from embedge.serve.stdio import StdioServer

from .conftest import Child, GatedPipeline, Start


@pytest.fixture
def child(start: Start, tiny_file: Path) -> Child:
    """A child that has said its first line."""
    child = start("--stdio", "--model", str(tiny_file))
    child.read()
    return child


def test_the_first_line_says_what_is_served(
    start: Start, tiny_file: Path, encoder: Encoder
) -> None:
    child = start("--stdio", "--model", str(tiny_file))
    assert child.read() == {
        "version": __version__,
        "protocol": 1,
        "model": "tiny",
        "fingerprint": encoder.fingerprint,
        "dim": 2,
        "max_tokens": 8,
        "prompts": ["passage", "query"],
    }
    assert child.end() == ([], 0)


def test_each_request_is_answered_before_the_next_is_sent(child: Child, encoder: Encoder) -> None:
    for identity, texts in ((1, ["a b"]), ("two", ["", "c b", "naïve 🙂"]), (-3, [])):
        assert child.ask({"id": identity, "texts": texts}) == {
            "id": identity,
            "vectors": encoder.encode(texts).tolist(),
        }


def test_options_of_a_request(child: Child, encoder: Encoder) -> None:
    long = "a b c c c c b a a"
    fields = {"texts": [long], "prompt": "query", "overflow": "mean", "protocol": 1}
    answer = child.ask({"id": 1, "encoding_format": "base64", **fields})
    vector = np.frombuffer(base64.b64decode(answer["vectors"][0]), "<f4")
    assert vector.tolist() == encoder.encode(long, prompt="query", overflow="mean").tolist()
    assert child.ask({"id": 1, "texts": [long], "prompt": None})["truncated"] == 1


BAD = [
    (b"\n", None, "RequestError", "expected a JSON object: Expecting value"),
    (b"nonsense\n", None, "RequestError", "expected a JSON object: Expecting value"),
    (b"[1]\n", None, "RequestError", "expected a JSON object, got a list"),
    (b'{"id": 1, "texts": ["\xff"]}\n', None, "RequestError", "expected UTF-8, got byte 0xff"),
    (b'{"id": NaN}\n', None, "RequestError", "NaN is not JSON"),
    (b'{"id": 1, "id": 2}\n', None, "RequestError", "a field is named twice"),
    (b"[" * 100_000 + b"\n", None, "RequestError", "nested too deep"),
    (b"9" * 5000 + b"\n", None, "RequestError", "an integer has 5000 digits, more than 1000"),
    (b'{"id": 1} {"id": 2}\n', None, "RequestError", "expected a JSON object: Extra data"),
    (b"x" * MAX_LINE + b"y\n", None, "RequestError", f"at most {MAX_LINE} bytes"),
    ({"texts": ["a"]}, None, "RequestError", "id: expected a string or an integer as id, got null"),
    ({"id": True, "texts": []}, None, "RequestError", "got a boolean"),
    ({"id": 1.5, "texts": []}, None, "RequestError", "got a number"),
    ({"id": 1}, 1, "RequestError", "expected a list of strings as texts, got null"),
    ({"id": 1, "texts": "a"}, 1, "RequestError", "expected a list of strings as texts, got a str"),
    ({"id": 1, "texts": {"a": 1}}, 1, "RequestError", "got an object"),
    ({"id": 1, "texts": ["a", 2]}, 1, "TextError", "text 1: expected a string, got a number"),
    ({"id": 1, "texts": ["a", "\ud800"]}, 1, "TextError", "text 1 holds a lone surrogate"),
    ({"id": 1, "texts": [""] * (MAX_TEXTS + 1)}, 1, "RequestError", f"at most {MAX_TEXTS} texts"),
    ({"id": 1, "texts": [], "promt": "x"}, 1, "RequestError", "unknown field 'promt'"),
    ({"id": 1, "texts": [], "prompt": "x"}, 1, "OptionError", "no prompt named 'x'"),
    ({"id": 1, "texts": [], "prompt": 3}, 1, "RequestError", "prompt: expected a string, got a n"),
    ({"id": 1, "texts": [], "overflow": "cut"}, 1, "OptionError", "'cut'"),
    ({"id": 1, "texts": [], "overflow": 0}, 1, "RequestError", "overflow: expected a string"),
    ({"id": 1, "texts": None}, 1, "RequestError", "expected a list of strings as texts, got null"),
    ({"id": None, "texts": []}, None, "RequestError", "a string or an integer as id, got null"),
    ({"cancel": None}, None, "RequestError", "a string or an integer as id, got null"),
    ({"id": 1, "texts": [], "encoding_format": []}, 1, "OptionError", "or 'base64', got []"),
    ({"id": 1, "texts": [], "protocol": 2}, 1, "ProtocolError", "speaks 1: update embedge"),
    ({"id": 1, "texts": [], "protocol": "1"}, 1, "RequestError", "protocol: expected an integer"),
    ({"id": 1, "texts": ["a " * 9], "overflow": "error"}, 1, "TextTooLongError", "text 0 has more"),
    ({"cancel": []}, None, "RequestError", "cancel: expected a string or an integer"),
    ({"cancel": 1, "texts": []}, None, "RequestError", "unknown field 'texts'"),
]  # fmt: skip


def test_bad_lines_are_answered_and_never_fatal(child: Child) -> None:
    for number, (line, identity, kind, message) in enumerate(BAD):
        answer = child.ask(line)
        assert answer["id"] == identity, line
        assert answer["error"]["type"] == kind, line
        assert message in answer["error"]["message"], line
        assert ("line" in answer) == (identity is None)
        if identity is None:
            assert answer["line"] == 1 + 2 * number
        assert child.ask({"id": "good", "texts": ["b"]})["id"] == "good"
    assert child.end() == ([], 0)


def test_an_error_of_a_text_says_which(child: Child) -> None:
    assert child.ask({"id": 1, "texts": ["a", None]})["error"]["position"] == 1


def test_a_field_that_is_null_counts_as_left_out(child: Child, encoder: Encoder) -> None:
    left_out = dict.fromkeys(("prompt", "overflow", "encoding_format", "protocol", "cancel"))
    answer = child.ask({"id": 1, "texts": ["a b"], **left_out})
    assert answer == {"id": 1, "vectors": encoder.encode(["a b"]).tolist()}


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"id": 1, "texts": ["a b"]}\r\n',  # as .NET and Windows write
        b'{"id": 1, "texts": ["a b"]}',  # the end of the input ends a line
        b'{"id": 1, "texts": ["a\\u0020b"]}\n',
    ],
)
def test_lines_as_others_write_them(child: Child, encoder: Encoder, data: bytes) -> None:
    child.send(data)
    assert child.end() == ([{"id": 1, "vectors": encoder.encode(["a b"]).tolist()}], 0)


def test_a_line_too_long_without_an_end_is_answered(child: Child) -> None:
    child.send(b"x" * (3 * MAX_LINE))
    answers, status = child.end()
    assert [answer["error"]["type"] for answer in answers] == ["RequestError"]
    assert status == 0


def test_a_client_that_reads_only_when_all_is_sent(child: Child, encoder: Encoder) -> None:
    child.send(*({"id": number, "texts": ["a b"]} for number in range(1000)))
    answers, status = child.end()
    assert status == 0
    assert sorted(answer["id"] for answer in answers) == list(range(1000))
    vectors = encoder.encode(["a b"]).tolist()
    assert all(answer["vectors"] == vectors for answer in answers)


def test_a_client_that_leaves_ends_the_child_silently(
    start: Start, tiny_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # As Python 3.13 does always, older ones then report what cannot be written at their ends.
    child = start("--stdio", "--model", str(tiny_file), PYTHONDEVMODE="1")
    child.read()
    child.send(*({"id": number, "texts": ["a b c a"] * 4000} for number in range(20)))
    child.stdout.close()
    child.stdin.close()
    assert child.process.wait() == 0
    assert "Exception ignored" not in capfd.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM: run on Linux or macOS")
def test_sigterm_finishes_what_runs(child: Child) -> None:
    child.send(*({"id": number, "texts": ["a b c a"] * 500} for number in range(5)))
    first = child.read()  # so the child has read something
    child.process.send_signal(signal.SIGTERM)
    answers = [first, *(json.loads(line) for line in child.stdout)]
    assert child.process.wait() == 0
    assert all(len(answer["vectors"]) == 500 for answer in answers)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM: run on Linux or macOS")
def test_sigterm_ends_an_idle_child(child: Child) -> None:
    child.process.send_signal(signal.SIGTERM)
    assert child.process.wait() == 0


def test_pipes_need_nothing_but_the_three_dependencies() -> None:
    code = "import embedge.serve.stdio, sys; print(*{name.split('.')[0] for name in sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(shown.stdout.split())
    assert "embedge" in loaded
    assert not loaded & {"starlette", "uvicorn", "httpx", "pyarrow", "torch", "pandas"}


class Pipes:
    """A StdioServer on a thread of this process."""

    def __init__(self, encoder: Encoder) -> None:
        inward, outward = os.pipe(), os.pipe()
        self._stdin: BinaryIO = os.fdopen(inward[1], "wb")
        self._stdout: BinaryIO = os.fdopen(outward[0], "rb")
        self._ends = os.fdopen(inward[0], "rb"), os.fdopen(outward[1], "wb")
        server = StdioServer(encoder, *self._ends)
        self._thread = threading.Thread(target=server.serve, daemon=True)
        self._thread.start()

    def send(self, line: Any) -> None:
        self._stdin.write(json.dumps(line).encode() + b"\n")
        self._stdin.flush()

    def read(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._stdout.readline())
        return value

    def close(self) -> None:
        self._stdin.close()
        self._thread.join()
        for stream in (self._stdout, *self._ends):
            stream.close()


@contextmanager
def pipes(encoder: Encoder, gated: GatedPipeline) -> Iterator[Pipes]:
    server = Pipes(encoder)
    server.read()
    try:
        yield server
    finally:
        gated.let_through()
        server.close()


def test_cancel_answers_at_once_and_stops(encoder: Encoder, gated: GatedPipeline) -> None:
    with pipes(encoder, gated) as server:
        server.send({"id": 7, "texts": ["a b c a"] * 1000})
        gated.wait_for_batch()
        server.send({"cancel": 8})  # which there is not: it may have been answered meanwhile
        server.send({"cancel": 7})
        answer = server.read()
        assert (answer["id"], answer["error"]["type"]) == (7, "CancelledError")
        server.send({"id": 7, "texts": ["b"]})  # the id is free again
        gated.let_through()
        assert len(server.read()["vectors"]) == 1
    assert len(gated.batches) == 2


def test_an_id_still_running_is_refused_and_its_request_continues(
    encoder: Encoder, gated: GatedPipeline
) -> None:
    again = pickle.loads(pickle.dumps(encoder))  # without the gate
    with pipes(encoder, gated) as server:
        server.send({"id": "x", "texts": ["b"]})
        gated.wait_for_batch()
        server.send({"id": "x", "texts": ["a"]})
        answer = server.read()
        assert (answer["id"], answer["line"]) == (None, 2)
        assert "id 'x' is that of a request still running" in answer["error"]["message"]
        gated.let_through()
        assert server.read() == {"id": "x", "vectors": again.encode(["b"]).tolist()}


def test_a_short_request_overtakes_a_long_one(encoder: Encoder, gated: GatedPipeline) -> None:
    with pipes(encoder, gated) as server:
        server.send({"id": "long", "texts": ["a b c a"] * 1000})
        gated.wait_for_batch()
        server.send({"id": "mark"})  # answered by the reader, so what is sent next is not read yet
        assert server.read()["id"] == "mark"
        server.send({"id": "short", "texts": ["b"]})
        server.send({"id": "mark"})
        assert server.read()["id"] == "mark"  # so "short" has been submitted
        gated.let_through(4)
        assert server.read()["id"] == "short"
