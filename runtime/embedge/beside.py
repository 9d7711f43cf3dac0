"""Work on another thread, while this one goes on with something else."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Beside(Generic[Result]):
    """A call that has begun on a thread of its own; `result` waits for its end.

    For what lets go of Python's lock: reading, hashing, parsing. concurrent.futures would do the
    same, and takes longer to import than this saves.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="embedge-beside")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # whatever it is, it is raised where the result is wanted
            self._error = error

    def wait(self, seconds: float) -> None:
        """Give it time, so that what needs Python's lock at its beginning is done."""
        self._thread.join(seconds)

    def result(self) -> Result:
        """What the call gave, or its error raised here."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result
