"""A fork while other threads are in onnxruntime."""

import os
import threading
import warnings
from collections.abc import Iterator

import pytest

from embedge import Encoder
from embedge.ort.fork_guard import _busy, call

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")


@pytest.fixture(autouse=True)
def forking_with_threads_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def test_a_fork_waits_for_the_call_of_another_thread() -> None:
    entered, leave = threading.Event(), threading.Event()

    def long_call() -> None:
        with call():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=long_call)
    thread.start()
    entered.wait(10)
    threading.Timer(0.2, leave.set).start()
    child = os.fork()
    if child == 0:
        os._exit(0 if leave.is_set() and not _busy else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()


def test_a_fork_does_not_wait_for_the_thread_that_forks() -> None:
    with call():
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_after_an_error_no_call_is_left(encoder: Encoder) -> None:
    with pytest.raises(LookupError, match="of the call"), call():
        raise LookupError("of the call")
    assert not _busy
    encoder.encode("a b")
    assert not _busy
