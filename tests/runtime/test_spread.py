"""A text that comes alone: several threads share its work, and nobody can tell by its vector."""

import os
import random
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedge import Encoder
from embedge.spread import Spread

from . import tiny
from .conftest import Run


def words(count: int) -> str:
    chance = random.Random(count)
    return " ".join(chance.choices(("a", "river", "bank", "naïve", "東京", "resets"), k=count))


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_alone_the_vector_has_the_same_bits_as_in_company_and_on_one_thread(threads: int) -> None:
    texts = [words(count) for count in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 180)]
    single, several = Encoder(threads=1), Encoder(threads=threads)
    expected = single.encode(texts)
    assert np.array_equal(several.encode(texts), expected)
    for text, vector in zip(texts, expected, strict=True):
        assert np.array_equal(single.encode(text), vector)
        for _ in range(2):
            assert np.array_equal(several.encode(text), vector)
    spread = several._session._spread
    assert spread is not None
    with spread.turn() as wide:
        assert wide is not None
        assert wide.get_session_options().intra_op_num_threads == threads


def test_the_session_is_made_for_the_second_that_comes_alone_and_once() -> None:
    made: list[str] = []

    def make() -> str:
        made.append("session")
        return made[-1]

    spread = Spread(make)
    turns = []
    for _ in range(4):
        with spread.turn() as session:
            turns.append(session)
    assert turns == [None, "session", "session", "session"]
    assert made == ["session"]


def test_one_caller_at_a_time_has_it_and_the_others_do_not_wait() -> None:
    spread = Spread(lambda: "session")
    seen: list[str | None] = []

    def other() -> None:
        with spread.turn() as session:
            seen.append(session)

    with spread.turn(), spread.turn() as session:
        assert session == "session"
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
    assert seen == [None]
    other()
    assert seen == [None, "session"]


@pytest.mark.parametrize("change", ["gone", "damaged", "another model"])
def test_a_file_that_is_not_what_it_was_changes_nothing(tmp_path: Path, change: str) -> None:
    path = tiny.write(tmp_path / "x.onnx", tiny.model())
    encoder = Encoder(path, threads=2)
    expected = encoder.encode("a b")
    if change == "gone":
        path.unlink()
    elif change == "damaged":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        tiny.write(path, tiny.model(tiny.graph(table=-tiny.TABLE)))
    for _ in range(3):
        assert np.array_equal(encoder.encode("a b"), expected)
    spread = encoder._session._spread
    assert spread is not None
    with spread.turn() as wide:
        assert wide is not None  # made of what was checked


def test_one_thread_or_a_large_file_has_none(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Encoder(tiny_file, threads=2)._session._spread is not None
    assert Encoder(tiny_file, threads=1)._session._spread is None
    monkeypatch.setattr("embedge.session._MAX_SPREAD_BYTES", tiny_file.stat().st_size - 1)
    assert Encoder(tiny_file, threads=2)._session._spread is None


def test_only_a_micro_batch_without_others_takes_it(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(tiny_file, threads=2)
    seen: list[bool] = []
    run = encoder._session.run

    def noted(input_ids: NDArray[np.int64], alone: bool = False) -> NDArray[np.float32]:
        seen.append(alone)
        return run(input_ids, alone)

    monkeypatch.setattr(encoder._session, "run", noted)
    encoder.encode(["a", "a b", "a b c"])
    assert seen == [False, False, False]
    encoder.encode("a")
    assert seen[3:] == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
@pytest.mark.skipif(sys.platform == "darwin", reason="no safe fork on this system")
def test_a_process_forked_after_it_encodes_and_ends(python: Run) -> None:
    """With the threads of onnxruntime still there, the child would hang when it ends."""
    result = python(
        "import os, signal, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from embedge import Encoder\n"
        "encoder = Encoder(threads=2)\n"
        "right = [encoder.encode('One text.').tobytes() for _ in range(3)][-1]\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(30)\n"
        "both = [encoder.encode('One text.').tobytes() == right for _ in range(3)]\n"
        "assert encoder._session._spread._session is not None\n"
        "if child == 0:\n"
        "    sys.exit(7 if all(both) else 8)\n"
        "print(all(both), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n",
        TOKENIZERS_PARALLELISM="false",  # else tokenizers 0.20 prints that it is so after a fork
    )
    assert result.stderr == ""
    assert result.stdout == "True 7\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
def test_forking_waits_for_the_turn_of_another_thread() -> None:
    spread = Spread(lambda: "session")
    entered, leave = threading.Event(), threading.Event()

    def long_turn() -> None:
        with spread.turn():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=long_turn)
    thread.start()
    entered.wait(10)
    timer = threading.Timer(0.2, leave.set)
    timer.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: on purpose
        child = os.fork()
    if child == 0:
        os._exit(0 if leave.is_set() and spread._session is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    with spread.turn() as session:
        assert session is None  # as at the first time: it begins anew
    with spread.turn() as session:
        assert session == "session"
