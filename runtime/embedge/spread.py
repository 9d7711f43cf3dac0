"""All threads on one micro-batch, for texts that come one at a time.

Workers run micro-batches side by side, one thread each, which is the best for many texts and leaves
all cores but one idle for a single text. For those there is a second onnxruntime session of the
same file, whose threads share the work of each call. It is made when the second such text comes, so
a process that encodes once never pays for it (of the default model: 40 ms and 35 MB). Work is split
between threads, sums never are, so the vectors are the same to the last bit.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from embedge.forking import at_rest, call

Session = TypeVar("Session")


class Spread(Generic[Session]):
    """The second session, for one caller at a time."""

    def __init__(self, make: Callable[[], Session | None]) -> None:
        """``make`` loads the session, or gives None where that is not possible or not worth it."""
        self._make = make
        self._session: Session | None = None
        self._lock = threading.RLock()
        self._seen = 0
        with call():
            _all.add(self)

    @contextmanager
    def turn(self) -> Iterator[Session | None]:
        """The session, for one call into onnxruntime; None where the caller should do without.

        That is so at the first time, while another thread has its turn (then the cores are busy
        anyway), and where there is no such session.
        """
        with call():
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

    def drop(self) -> None:
        """Begin anew, without the session and its threads; nobody may have a turn."""
        self._session = None
        self._seen = 0


_all: WeakSet[Spread[Any]] = WeakSet()


def _drop_all() -> None:
    for spread in _all:
        spread.drop()


# A forked process has none of its parent's threads, and would wait for them when it ends. So there
# are none while a process forks; both make their session again when they need it.
at_rest(_drop_all)
