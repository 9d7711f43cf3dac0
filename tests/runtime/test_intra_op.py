"""A text that comes alone: several threads share its work, and nobody can tell by its vector."""

import os
import random
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedge import Encoder
from embedge.ort.intra_op import _FIRST_TRIALS, _TRIAL_EVERY, Spread

from . import tiny


def words(count: int) -> str:
    chance = random.Random(count)
    return " ".join(chance.choices(("a", "river", "bank", "naïve", "東京", "resets"), k=count))


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_alone_the_vector_has_the_same_bits_as_in_company_and_on_one_thread(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "embedge.ort.intra_op._FIRST_TRIALS", 1000
    )  # all give the shared one's vector
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
    assert spread._session is not None
    assert spread._session.get_session_options().intra_op_num_threads == threads


class Clock:
    """Stands in for the time: a call takes as long as its session says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.ran: list[str] = []
        monkeypatch.setattr("embedge.ort.intra_op.perf_counter", lambda: self.now)

    def work(self, session: str) -> str:
        self.now += self.seconds[session]
        self.ran.append(session)
        return session


def test_the_session_is_made_for_the_second_that_comes_alone_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def make() -> str:
        made.append("wide")
        return made[-1]

    clock = Clock(monkeypatch, plain=2, wide=1)
    spread = Spread(make)
    assert spread.run(clock.work, "plain") == "plain"
    assert made == []
    assert spread.run(clock.work, "plain") == "wide"
    for _ in range(3):
        spread.run(clock.work, "plain")
    assert made == ["wide"]


def test_the_faster_way_is_kept_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, plain=2, wide=1)
    spread = Spread(lambda: "wide")
    both = ["plain", "wide"]

    def ran(times: int) -> list[str]:
        clock.ran.clear()
        for _ in range(times):
            spread.run(clock.work, "plain")
        return clock.ran

    assert ran(1) == ["plain"]
    assert ran(_FIRST_TRIALS) == both * _FIRST_TRIALS
    assert ran(_TRIAL_EVERY) == [
        *["wide"] * (_TRIAL_EVERY - 2 - _FIRST_TRIALS),
        *both,
        *["wide"] * (1 + _FIRST_TRIALS),
    ]
    clock.seconds = {"plain": 1, "wide": 2}  # the cores are shared with somebody now
    assert ran(_TRIAL_EVERY).count("plain") == 1
    assert ran(_TRIAL_EVERY).count("wide") == _TRIAL_EVERY - 1 - _FIRST_TRIALS
    assert ran(_TRIAL_EVERY).count("wide") == 1


def test_one_caller_at_a_time_has_it_and_the_others_do_not_wait() -> None:
    spread = Spread(lambda: "wide")
    seen: list[str] = []

    def other() -> None:
        seen.append(spread.run(str, "plain"))

    def work(session: str) -> str:
        if session == "wide":
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(10)
        return session

    spread.run(str, "plain")
    assert spread.run(work, "plain") == "wide"
    assert seen == ["plain"]
    other()
    assert seen == ["plain", "wide"]


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
    assert spread._session is None


def test_one_thread_or_a_large_file_has_none(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Encoder(tiny_file, threads=2)._session._spread is not None
    assert Encoder(tiny_file, threads=1)._session._spread is None
    monkeypatch.setattr("embedge.ort.session._MAX_SPREAD_BYTES", tiny_file.stat().st_size - 1)
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
def test_a_process_forked_after_it_encodes_and_ends(
    check_forked: Callable[[str, str], None],
) -> None:
    """With the threads of onnxruntime still there, the child would hang when it ends."""
    check_forked(
        "encoder = Encoder(threads=2)\n"
        "first = [encoder.encode('One text.').tobytes() for _ in range(3)][-1]",
        "right = all([encoder.encode('One text.').tobytes() == first for _ in range(3)])\n"
        "assert encoder._session._spread._session is not None",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
def test_forking_waits_for_the_turn_of_another_thread() -> None:
    spread = Spread(lambda: "wide")
    spread.run(str, "plain")
    entered, leave = threading.Event(), threading.Event()

    def long(session: str) -> str:
        entered.set()
        leave.wait(10)
        return session

    thread = threading.Thread(target=spread.run, args=(long, "plain"))
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
    assert spread.run(str, "plain") == "plain"  # as at the first time: it begins anew
    assert spread.run(str, "plain") == "wide"
