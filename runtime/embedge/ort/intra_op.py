"""All threads on one micro-batch, for texts that come one at a time, where that is faster.

Workers run micro-batches side by side, one thread each, which is the best for many texts and leaves
all cores but one idle for a single text. For those there is a second onnxruntime session of the
same file, whose threads share the work of each call. It is made when the second such text comes, so
a process that encodes once never pays for it (of the default model: 50 ms and 35 MB). Work is split
between threads, sums never are, so the vectors are the same to the last bit.

Sharing pays where the threads have cores of their own. Where these are two halves of one core, as
on most rented machines, slower ones, or busy with something else, it costs a third more instead of
a third less. That cannot be asked, and changes with the hour: so now and then a text is run both
ways, and the faster one is kept.
"""

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from embedge.ort.fork_guard import at_rest, call

Session = TypeVar("Session")
Result = TypeVar("Result")

# Texts that are run both ways: some at first, later one in so many.
_FIRST_TRIALS = 5
_TRIAL_EVERY = 64
# By how many trials one way may lead, so that some against it bring the other.
_LARGEST_LEAD = 2


class Spread(Generic[Session]):
    """The second session, for one caller at a time."""

    def __init__(self, make: Callable[[], Session | None]) -> None:
        """``make`` loads the session, or gives None where that is not possible or not worth it."""
        self._make = make
        self._lock = threading.RLock()
        self.drop()
        with call():
            _all.add(self)

    def drop(self) -> None:
        """Begin anew, without the session and its threads; nobody may be running it."""
        self._session: Session | None = None
        self._seen = 0
        self._lead = 0  # trials that this session has won, less those that it has lost

    def run(self, work: Callable[[Session], Result], plain: Session) -> Result:
        """The result of ``work``, a call into onnxruntime, on this session or on the plain one.

        On the plain one at the first time, while another thread runs this one (then the cores are
        busy anyway), where there is no such session, and where it has shown to be slower.
        """
        with call():
            if not self._lock.acquire(blocking=False):
                return work(plain)
            try:
                self._seen += 1
                if self._seen == 2:
                    self._session = self._make()
                if self._session is None:
                    return work(plain)
                if self._seen < 2 + _FIRST_TRIALS or self._seen % _TRIAL_EVERY == 0:
                    return self._trial(work, plain, self._session)
                return work(self._session if self._lead > 0 else plain)
            finally:
                self._lock.release()

    def _trial(self, work: Callable[[Session], Result], plain: Session, wide: Session) -> Result:
        start = perf_counter()
        work(plain)
        middle = perf_counter()
        result = work(wide)
        won = perf_counter() - middle < middle - start
        lead = self._lead + (1 if won else -1)
        self._lead = max(-_LARGEST_LEAD, min(lead, _LARGEST_LEAD))
        return result


_all: WeakSet[Spread[Any]] = WeakSet()


def _drop_all() -> None:
    for spread in _all:
        spread.drop()


# A forked process has none of its parent's threads, and would wait for them when it ends. So there
# are none while a process forks; both make their session again when they need it.
at_rest(_drop_all)
