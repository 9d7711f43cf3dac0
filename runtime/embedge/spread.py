"""All threads on one micro-batch, for texts that come one at a time.

Workers run micro-batches side by side, one thread each, which is the best for many texts and leaves
all cores but one idle for a single text. For those there is a second onnxruntime session of the
same file, whose threads share the work of each call. It is made when the second such text comes, so
a process that encodes once never pays for it (of the default model: 40 ms and 35 MB). Work is split
between threads, sums never are, so the vectors are the same to the last bit.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Session = TypeVar("Session")


class Spread(Generic[Session]):
    """The second session, for one caller at a time."""

    def __init__(self, make: Callable[[], Session | None]) -> None:
        """``make`` loads the session, or gives None where that is not possible or not worth it."""
        self._make = make
        self._session: Session | None = None
        self._lock = threading.RLock()
        self._seen = 0
        with _guard:
            _all.add(self)

    @contextmanager
    def turn(self) -> Iterator[Session | None]:
        """The session, for as long as the context lasts; None where the caller should do without.

        That is so at the first time, while another thread has its turn (then the cores are busy
        anyway), and where there is no such session.
        """
        if not self._lock.acquire(blocking=False):
            yield None
            return
        try:
            self._seen += 1
            if self._seen == 2:
                self._session = self._make()
            yield self._session
        finally:
            self._lock.release()

    def hold(self) -> None:
        """Wait until nobody has a turn, let none begin, and drop the session with its threads."""
        self._lock.acquire()
        self._session = None
        self._seen = 0

    def release(self) -> None:
        """Let turns begin again."""
        self._lock.release()


# A forked process has none of its parent's threads, and would wait for them when it ends. So there
# are none while a process forks; both make their session again when they need it.
_all: WeakSet[Spread[Any]] = WeakSet()
_held: list[Spread[Any]] = []
_guard = threading.RLock()


def _before_fork() -> None:
    _guard.acquire()
    _held.extend(_all)
    for spread in _held:
        spread.hold()


def _after_fork() -> None:
    for spread in _held:
        spread.release()
    _held.clear()
    _guard.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
