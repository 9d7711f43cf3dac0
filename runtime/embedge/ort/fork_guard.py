"""A fork waits until onnxruntime is at rest, so that the forked process can use it.

A forked process has no thread but the one that forked. A lock inside onnxruntime that another
thread held at that moment would stay locked in it for ever, and the first call would hang.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL = 0.001  # seconds; only while a process forks

_busy: set[int] = set()  # threads that are in a call
_at_rest: list[Callable[[], None]] = []
# Held while a thread joins them, and while a process forks. As `with` on a lock is safe from Ctrl-C
# and reentrant, neither an interrupt nor a fork in a signal's handler can leave it locked.
_gate = threading.RLock()


@contextmanager
def call() -> Iterator[None]:
    """For a call into onnxruntime: no process forks meanwhile, other calls go on side by side."""
    thread = threading.get_ident()
    with _gate:
        outermost = thread not in _busy
        _busy.add(thread)
    try:
        yield
    finally:
        if outermost:
            _busy.discard(thread)


def at_rest(work: Callable[[], None]) -> None:
    """Have ``work`` done before every fork, while no other thread is in a call."""
    _at_rest.append(work)


def _before_fork() -> None:
    _gate.acquire()
    while _busy - {threading.get_ident()}:
        time.sleep(_POLL)
    for work in _at_rest:
        work()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_gate.release, after_in_child=_gate.release
    )
