"""Lines that say what an export does, and that it is still at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from embedge.errors import EmbedgeError, ExportError

Notify = Callable[[str], None]

SECONDS = 15.0  # of silence in a step before a line says that it goes on


@contextmanager
def step(name: str, notify: Notify) -> Iterator[Notify]:
    """Run one step of an export; yields what says something about it.

    What goes wrong gets the name of the step. A step that says nothing for `SECONDS` says that it
    is still running, and for how long.

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
    except ExportError:
        raise
    except (EmbedgeError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ExportError(name, f"{type(error).__name__}: {error}") from error
    finally:
        finished.set()
        thread.join()
