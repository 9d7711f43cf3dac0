"""A fork or the interpreter's end while threads are in native code, and interrupts anywhere."""

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import embedge
from embedge import Encoder
from embedge.ort import fork_guard
from embedge.ort.fork_guard import ort_call, wait_for_calls

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")


@pytest.fixture(autouse=True)
def forking_with_threads_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have something done at the first poll of a wait, so that no test needs a clock."""

    def set_action(action: Callable[[], None]) -> None:
        def sleep(seconds: float) -> None:
            monkeypatch.undo()
            action()

        monkeypatch.setattr("embedge.ort.fork_guard.time.sleep", sleep)

    return set_action


class InCall:
    """A thread in a call, until told to leave."""

    def __init__(self) -> None:
        entered, self.left = threading.Event(), threading.Event()

        def work() -> None:
            entered.set()
            assert self.left.wait(60)

        self.thread = threading.Thread(target=ort_call, args=(work,))
        self.thread.start()
        assert entered.wait(60)


def forked(check: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        os._exit(0 if check() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
def test_a_fork_waits_for_the_call_of_another_thread(polls: Any) -> None:
    call = InCall()
    polls(call.left.set)
    assert forked(call.left.is_set) == 0
    call.thread.join()


@needs_fork
def test_a_fork_does_not_wait_for_the_thread_that_forks() -> None:
    assert ort_call(lambda: forked(lambda: True)) == 0


@needs_fork
def test_a_call_waits_for_a_fork_and_one_within_a_call_does_not(polls: Any) -> None:
    """The fork waits for the outer call, which makes another before it ends."""
    done: list[str] = []
    entered, forking = threading.Event(), threading.Event()

    def outer() -> None:
        entered.set()
        assert forking.wait(60)
        ort_call(lambda: done.append("inner"))
        done.append("outer")

    first = threading.Thread(target=ort_call, args=(outer,))
    late = threading.Thread(target=ort_call, args=(lambda: done.append("late"),))
    first.start()
    assert entered.wait(60)

    def while_forking() -> None:
        late.start()
        forking.set()

    polls(while_forking)
    assert forked(lambda: done == ["inner", "outer"]) == 0
    first.join()
    late.join()
    assert done == ["inner", "outer", "late"]
    assert fork_guard._forks == []


def test_waiting_ends_when_no_other_thread_is_in_a_call(polls: Any) -> None:
    call = InCall()
    polls(call.left.set)
    wait_for_calls()
    assert call.left.is_set()
    call.thread.join()
    ort_call(wait_for_calls)  # its own call does not count


def interrupt_at(opcode: int, work: Callable[[], object]) -> bool:
    """Raise KeyboardInterrupt at the given opcode of embedge's code; False where it has fewer."""
    folder = str(Path(embedge.__file__).parent)
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(folder):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen += 1
            if seen == opcode:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return seen >= opcode


def assert_nothing_is_left(encoder: Encoder, expected: bytes) -> None:
    waiting = threading.Thread(target=wait_for_calls, daemon=True)
    waiting.start()
    waiting.join(60)
    assert not waiting.is_alive(), "a fork would wait for ever"
    assert encoder.encode("a b").tobytes() == expected


def test_an_interrupt_at_any_opcode_of_a_call_leaves_nothing_behind(encoder: Encoder) -> None:
    expected = encoder.encode("a b").tobytes()
    opcode = 1
    while interrupt_at(opcode, lambda: ort_call(int)):
        assert_nothing_is_left(encoder, expected)
        opcode += 1
    assert opcode > 30


@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupt_at_any_opcode_of_encode_leaves_nothing_behind(
    tiny_file: Any, threads: int
) -> None:
    """Every opcode of the package's own code in a call of three micro-batches."""
    encoder = Encoder(tiny_file, threads=threads)
    expected = encoder.encode("a b").tobytes()
    opcode = 1
    while interrupt_at(opcode, lambda: encoder.encode(["a", "a b", "a b c"])):
        assert_nothing_is_left(encoder, expected)
        opcode += 3
    assert opcode > 1000
    for thread in threading.enumerate():  # helpers end by themselves
        if thread.name == "embedge":
            thread.join(60)
            assert not thread.is_alive()


@needs_fork
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_opcode_of_the_wait_before_a_fork_leaves_it_open() -> None:
    opcode = 1
    while interrupt_at(opcode, lambda: forked(lambda: fork_guard._forks == [])) and opcode < 500:
        assert fork_guard._forks == []
        opcode += 1
    assert ort_call(lambda: "still works") == "still works"
