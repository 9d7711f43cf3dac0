"""Report the steps of an export, and that a long one is still running."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from embedge.errors import ExportError, one_line

Notify = Callable[[str], None]

SECONDS = 15.0  # without a line in a step before one says that it is still running


@contextmanager
def step(name: str, notify: Notify) -> Iterator[Notify]:
    """Run one step of an export; yields a function that reports about it.

    Errors get the name of the step. A step that reports nothing for `SECONDS` reports that it is
    still running, and for how long.

    Raises:
        ExportError: the step failed.
    """
    finished, spoken = Event(), Event()
    start = time.monotonic()

    def say(text: str) -> None:
        spoken.set()
        notify(f"{name:<9} {text}")

    def beat() -> None:
        while not finished.wait(SECONDS):
            if not spoken.is_set():
                notify(f"{name:<9} still running, {time.monotonic() - start:.0f} s")
            spoken.clear()

    thread = Thread(target=beat, name=f"embedge-export-{name}", daemon=True)
    thread.start()
    try:
        yield say
    except (ExportError, MemoryError):
        raise
    except Exception as error:  # other libraries raise anything; ours is one sentence
        raise ExportError(name, f"{type(error).__name__}: {one_line(error)}") from error
    finally:
        finished.set()
        thread.join()
