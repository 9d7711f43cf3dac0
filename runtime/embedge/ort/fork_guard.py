"""Calls into native code (onnxruntime, tokenizers), and what has to wait until none is running.

A forked process has no thread but the one that forked: a lock inside onnxruntime that another
thread held at that moment would stay locked in it forever. And a thread that is in native code
when the interpreter ends makes the process abort. So both wait, and no call starts meanwhile.

Nothing is counted or marked, as an interrupt (Ctrl-C) between a call and its mark would leave the
mark behind. Whether a thread is in a call is read from its stack, which Python keeps right.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TypeVar

from embedge.errors import ClosedError

Result = TypeVar("Result")

_POLL = 0.001  # seconds; only while a process forks or exits
_TO_PRINT = 0.05  # seconds that a thread may take to print the error that stopped it

_forks: list[None] = []  # an item for each fork that is under way
_exiting: list[None] = []  # an item once the interpreter exits


def ort_call(work: Callable[[], Result]) -> Result:
    """Do ``work``, a call into native code: no process forks and no interpreter ends meanwhile.

    Calls of several threads run concurrently.

    Raises:
        SystemExit, ClosedError: the main thread has ended, and this is another one. SystemExit
            ends a thread without a message; threads that Python did not start get ClosedError.
    """
    while True:
        result = _guarded(work, _forks)
        if result:
            return result[0]
        if _in_call(sys._getframe()):  # a fork waits for this thread's outer call
            return work()
        time.sleep(_POLL)


def _guarded(work: Callable[[], Result], forks: list[None]) -> tuple[Result] | None:
    """Do ``work``, or give None while a process forks. A thread in here is in a call."""
    if forks:
        return None
    if is_exiting() and threading.current_thread() is not threading.main_thread():
        raise _exit_error()
    return (work(),)


def _exit_error() -> BaseException:
    message = "the interpreter is exiting; join a thread whose vectors are needed"
    # A C++ program that runs Python in a thread of its own (Qt) may exit at once on SystemExit.
    foreign = _is_foreign(threading.current_thread())
    return ClosedError(message) if foreign else SystemExit(message)


def _is_foreign(thread: threading.Thread) -> bool:
    """Whether Python's threading has not started a thread."""
    return isinstance(thread, threading._DummyThread)


def is_exiting() -> bool:
    """Whether the main thread has ended, so that no other thread may start a call."""
    # Python sets it before it joins threads, and offers no public way to ask.
    return bool(_exiting) or getattr(threading, "_SHUTTING_DOWN", False)


def _in_call(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is _guarded.__code__:
            return True
        frame = frame.f_back
    return False


def wait_for_calls() -> None:
    """Wait until no other thread is in a call."""
    own = threading.get_ident()
    while any(_in_call(top) for thread, top in sys._current_frames().items() if thread != own):
        time.sleep(_POLL)


def _wait_at_exit() -> None:
    wait_for_calls()
    # Python aborts the process where a thread is printing while the interpreter ends.
    if any(map(_is_foreign, threading.enumerate())):
        time.sleep(_TO_PRINT)


def in_forked_process(work: Callable[[], None]) -> None:
    """Have ``work`` done at the start of every process forked from this one."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=work)


# append, pop and clear are written in C, so no interrupt can come between; the last one registered
# for `before` runs first.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait_for_calls)
    os.register_at_fork(
        before=partial(_forks.append, None),
        after_in_parent=_forks.pop,
        after_in_child=_forks.clear,
    )
atexit.register(_wait_at_exit)
atexit.register(_exiting.append, None)  # first, as the last one registered runs first
