"""Closing an Encoder: what is released, what still works, and calls that are under way."""

import pickle
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedge import ClosedError, Encoder

from .conftest import Run


def test_a_closed_encoder_says_so_at_any_use(tiny_file: Path) -> None:
    with Encoder(tiny_file) as encoder:
        expected = encoder.encode("a b")
    for call in (
        lambda: encoder.encode("a"),
        lambda: encoder.encode([]),
        lambda: encoder.encode_iter(["a"]),
        lambda: encoder.encode_query("a"),
        lambda: encoder.encode_document(["a"]),
        lambda: encoder.count_tokens("a"),
    ):
        with pytest.raises(ClosedError, match="this Encoder has been closed; make a new one"):
            call()
    encoder.close()  # again
    assert encoder.dim == 2
    assert encoder.info["name"] == "tiny"
    assert encoder.similarity(expected, expected).shape == (1, 1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode("a b"), expected)


def test_an_error_within_the_block_closes_it_and_passes(tiny_file: Path) -> None:
    encoder = Encoder(tiny_file)
    with pytest.raises(LookupError, match="of the block"), encoder:
        raise LookupError("of the block")
    with pytest.raises(ClosedError, match="closed"):
        encoder.encode("a")


@pytest.mark.parametrize("how", ["close", "del"])
def test_the_session_and_the_tokenizer_are_released(tiny_file: Path, how: str) -> None:
    encoder = Encoder(tiny_file, threads=2)
    encoder.encode(["a", "a b"])
    suspended = encoder.encode_iter(["a"] * 5000)
    next(suspended)
    session = weakref.ref(encoder._pipeline.session._session)
    if how == "close":
        encoder.close()
        with pytest.raises(ClosedError, match="closed"):
            list(suspended)
    else:
        del encoder, suspended
    assert session() is None


@pytest.mark.parametrize("threads", [1, 3])
def test_a_call_in_another_thread_ends_with_our_error(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Closed in the middle of onnxruntime's run, which still has what it needs."""
    encoder = Encoder(tiny_file, threads=threads)
    session = encoder._pipeline.session
    inner = session._session
    running, closed = threading.Event(), threading.Event()

    class Slow:
        def run(self, *arguments: object) -> list[NDArray[np.float32]]:
            running.set()
            assert closed.wait(60)
            return inner.run(*arguments)  # type: ignore[union-attr]

    monkeypatch.setattr(session, "_session", Slow())
    errors: list[BaseException] = []

    def work() -> None:
        try:
            encoder.encode(["a", "a b", "a b c"] * 100)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert running.wait(60)
    encoder.close()
    closed.set()
    thread.join(60)
    assert [type(error) for error in errors] == [ClosedError]
    assert not any(thread.name == "embedge" for thread in threading.enumerate())


MEMORY = """
import os, warnings
warnings.simplefilter("ignore")
from embedge import Encoder
import embedge.ort.probes
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
before = resident()
encoder = Encoder(threads=2)
encoder.encode(["word " * (i % 300) for i in range(100)])
loaded = resident()
encoder.close()
print(before, loaded, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_close_returns_the_memory(python: Run) -> None:
    """Of 100 MB and more that a loaded model takes, 102 stayed after deleting it and trimming."""
    result = python(MEMORY)
    assert result.stderr == ""
    before, loaded, after = map(float, result.stdout.split())
    assert loaded > before + 40
    assert after < before + 25
