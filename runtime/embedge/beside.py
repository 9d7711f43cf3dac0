"""Work on another thread, while this one goes on with something else."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Beside(Generic[Result]):
    """A call that begins at once on a thread of its own; `result` waits for its end.

    For what lets go of Python's lock: reading, hashing, parsing. concurrent.futures would do the
    same, and takes longer to import than this saves.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._done = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None
        self._thread = threading.Thread(target=self._run, name="embedge-beside")
        try:
            self._thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends: `result` does the work
            self._thread = None

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # whatever it is, it is raised where the result is wanted
            self._error = error
        self._done = True

    def wait(self, seconds: float) -> None:
        """Give it time, so that what needs Python's lock at its beginning is done."""
        if self._thread is not None:
            self._thread.join(seconds)

    def result(self) -> Result:
        """What the call gave, or its error raised here; to be asked for once."""
        if self._thread is not None:
            self._thread.join()
        if not self._done:  # there was no thread, or a process forked, and it stayed in the parent
            self._run()
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            self._error = None  # its traceback leads here: memory would wait for the collector
