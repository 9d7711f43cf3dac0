"""Pieces of work on several threads: each once, errors raised, nothing left behind."""

import threading
from typing import Any

import pytest

from embedge.ort.workers import Workers


def run_all(workers: Workers[int, int], count: int) -> list[tuple[int, int]]:
    """Submit as the pipeline does, and collect."""
    found: list[tuple[int, int]] = []
    left = list(range(count))[::-1]
    while left or not workers.is_idle:
        while left and workers.wants_work:
            workers.submit(left.pop())
        found += workers.step()
    return found


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_every_piece_is_done_once_and_given_back(threads: int, count: int) -> None:
    ran: list[int] = []

    def run(work: int) -> int:
        ran.append(work)
        return 10 * work

    with Workers(run, threads) as workers:
        found = run_all(workers, count)
    assert sorted(ran) == list(range(count))
    assert sorted(found) == [(work, 10 * work) for work in range(count)]
    assert threading.active_count() == 1 or not any(
        thread.name == "embedge" for thread in threading.enumerate()
    )


def test_so_many_threads_work_at_the_same_time_and_no_more() -> None:
    together = threading.Barrier(3, timeout=60)
    names: set[str] = set()

    def run(work: int) -> int:
        names.add(threading.current_thread().name)
        together.wait()  # passes only when three are here
        return work

    with Workers(run, 3) as workers:
        run_all(workers, 30)
    assert len(names) <= 30
    assert threading.current_thread().name in names


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_error_drops_what_has_not_started(threads: int) -> None:
    ran: list[int] = []

    def run(work: int) -> int:
        ran.append(work)
        if work == 3:
            raise ZeroDivisionError("the fourth")
        return work

    workers = Workers(run, threads)
    with pytest.raises(ZeroDivisionError, match="the fourth"), workers:
        run_all(workers, 200)
    assert len(ran) < 3 + 3 * threads + 2
    assert not any(thread.name == "embedge" for thread in threading.enumerate())


def test_work_that_has_not_started_is_dropped_when_the_caller_stops() -> None:
    """The helper is in its first piece of work until the caller waits for it."""
    started, stopping = threading.Event(), threading.Event()
    helped: list[int] = []

    def run(work: int) -> int:
        if threading.current_thread().name == "embedge":
            helped.append(work)
            started.set()
            assert stopping.wait(60)
        return work

    with Workers(run, 2) as workers:
        for work in range(4):
            workers.submit(work)
        next(workers.step())
        assert started.wait(60)
        (helper,) = workers._helpers
        join = helper.join
        helper.join = lambda: (stopping.set(), join())  # type: ignore[assignment,method-assign]
    assert len(helped) == 1


def test_an_error_in_a_helper_is_raised_in_the_calling_thread() -> None:
    failed = threading.Event()

    def run(work: int) -> int:
        if threading.current_thread().name == "embedge":
            failed.set()
            raise LookupError("in a helper")
        assert failed.wait(60)
        return work

    workers = Workers(run, 2)
    with pytest.raises(LookupError, match="in a helper"), workers:
        run_all(workers, 8)


def test_a_helper_may_end_its_own_call() -> None:
    """As when it collects the garbage that the call's iterator has become."""
    begun, ended = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def run(work: int) -> int:
        if threading.current_thread().name == "embedge":
            assert begun.wait(60)
            try:
                workers.__exit__()
            except RuntimeError as error:
                errors.append(error)
            ended.set()
        begun.set()
        assert ended.wait(60)
        return work

    workers = Workers(run, 2)
    for work in range(4):
        workers.submit(work)
    next(workers.step())
    assert not errors


def test_where_no_thread_can_be_started_the_calling_thread_does_it_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with Workers(lambda work: work, 4) as workers:
        assert len(run_all(workers, 50)) == 50


def test_work_whose_thread_has_gone_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process forked in the middle of a call, which has none of the helpers."""
    monkeypatch.setattr("embedge.ort.workers._PATIENCE", 0.001)

    def takes_one_and_is_gone(run: Any, todo: Any, done: Any) -> None:
        todo.pop()

    monkeypatch.setattr("embedge.ort.workers._help", takes_one_and_is_gone)
    with Workers(lambda work: work, 3) as workers:
        assert sorted(run_all(workers, 20)) == [(work, work) for work in range(20)]
