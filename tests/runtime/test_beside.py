"""Work on another thread: its result, its error, and what becomes of it without a thread."""

import gc
import os
import sys
import threading
import warnings
import weakref

import pytest

from embedge.beside import Beside


def test_it_runs_on_another_thread_and_gives_its_result() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert go_on.wait(10)
        return threading.current_thread().name

    beside = Beside(work)
    assert begun.wait(10)  # without being asked
    beside.wait(0.001)  # does not wait for its end
    go_on.set()
    assert beside.result() == "embedge-beside"


def fail() -> None:
    raise KeyError("what went wrong")


def test_its_error_is_raised_where_the_result_is_wanted() -> None:
    with pytest.raises(KeyError, match="what went wrong"):
        Beside(fail).result()


def test_nothing_is_kept_of_a_failure() -> None:
    class Data:
        """Stands in for the bytes of a file."""

    data = Data()
    seen = weakref.ref(data)

    def use(data: Data) -> None:
        raise KeyError("what went wrong")

    gc.disable()  # what is in no cycle goes without it
    try:
        with pytest.raises(KeyError):
            Beside(lambda data=data: use(data)).result()  # type: ignore[misc]
        del data
        assert seen() is None
    finally:
        gc.enable()


def test_where_no_thread_can_be_had_it_is_done_when_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    beside = Beside(lambda: threading.current_thread().name)
    beside.wait(0.001)
    assert beside.result() == threading.current_thread().name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
@pytest.mark.skipif(sys.platform == "darwin", reason="no safe fork on this system")
def test_a_forked_process_does_what_its_parents_thread_had_not_finished() -> None:
    go_on = threading.Event()
    parent = os.getpid()

    def work() -> int:
        if os.getpid() == parent:
            go_on.wait(10)
        return 7

    beside = Beside(work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: on purpose
        child = os.fork()
    if child == 0:
        os._exit(beside.result())
    go_on.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert beside.result() == 7
