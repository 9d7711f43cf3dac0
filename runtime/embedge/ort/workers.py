"""Concurrent micro-batches of one call: the calling thread works, and helper threads as well.

Helpers are threads that end as soon as nothing waits for them. None is idle between calls, none has
to survive a fork, and whatever happens to the calling thread, none is left behind: they wait for
nothing and hold no lock. Where the system starts no more threads, the calling thread does all the
work.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from embedge.ort.fork_guard import is_exiting

Work = TypeVar("Work")
Result = TypeVar("Result")

_PATIENCE = 0.1  # seconds without a result after which the helpers are checked


class Workers(Generic[Work, Result]):
    """Up to ``threads`` threads, the calling one included, that do pieces of work.

    Use as a context manager, in one thread: at its end, work that has not started is dropped, and
    what has started is waited for.
    """

    def __init__(self, run: Callable[[Work], Result], threads: int) -> None:
        self._run = run
        self._most_helpers = threads - 1
        self._helpers: list[threading.Thread] = []
        self._todo: deque[tuple[int, Work]] = deque()
        self._done: SimpleQueue[tuple[int, Result | BaseException]] = SimpleQueue()
        self._unfinished: dict[int, Work] = {}
        self._count = 0

    def __enter__(self) -> "Workers[Work, Result]":
        return self

    def __exit__(self, *exception: object) -> None:
        self._todo.clear()
        for helper in self._helpers:
            # A stream that is garbage may be collected in any thread, so in one of its own.
            if helper is not threading.current_thread():
                helper.join()

    @property
    def wants_work(self) -> bool:
        """Whether some thread may soon have nothing to do."""
        return len(self._todo) < 2 * (self._most_helpers + 1)

    @property
    def is_idle(self) -> bool:
        """Whether everything submitted has been given back."""
        return not self._unfinished

    def submit(self, work: Work) -> None:
        """Add a piece of work."""
        self._count += 1
        self._unfinished[self._count] = work
        self._todo.append((self._count, work))

    def step(self) -> Iterator[tuple[Work, Result]]:
        """Do a piece of work, or wait for one, and yield all that has been finished.

        Raises whatever a piece of work raised, in this thread or another.
        """
        self._start_helpers()
        try:
            number, work = self._todo.popleft()
        except IndexError:
            yield from self._wait()
        else:
            self._done.put((number, self._run(work)))
        while not self._done.empty():
            yield from self._finish(*self._done.get())

    def _start_helpers(self) -> None:
        self._helpers = [helper for helper in self._helpers if helper.is_alive()]
        wanted = min(self._most_helpers, len(self._todo) - 1) - len(self._helpers)
        for _ in range(0 if is_exiting() else wanted):
            helper = threading.Thread(
                target=_help, args=(self._run, self._todo, self._done), daemon=True, name="embedge"
            )
            try:
                helper.start()
            except RuntimeError:  # the system starts no more threads
                self._most_helpers = len(self._helpers)
                return
            self._helpers.append(helper)

    def _wait(self) -> Iterator[tuple[Work, Result]]:
        while self._unfinished:
            try:
                yield from self._finish(*self._done.get(timeout=_PATIENCE))
            except Empty:
                # Forked in the middle of a call, or ended from outside: done again here.
                if not any(helper.is_alive() for helper in self._helpers) and self._done.empty():
                    self._todo.extend(self._unfinished.items())
                    return
            else:
                return

    def _finish(self, number: int, result: Result | BaseException) -> Iterator[tuple[Work, Result]]:
        if isinstance(result, BaseException):
            raise result
        if number in self._unfinished:
            yield self._unfinished.pop(number), result


def _help(
    run: Callable[[Work], Result],
    todo: deque[tuple[int, Work]],
    done: SimpleQueue[tuple[int, Result | BaseException]],
) -> None:
    while True:
        try:
            number, work = todo.popleft()
        except IndexError:
            return
        try:
            done.put((number, run(work)))
        except BaseException as error:  # the calling thread raises it
            todo.clear()
            done.put((number, error))
            return
