"""The command `embedge`, also as `python -m embedge`: Ctrl-C ends it at once, with status 130.

Nothing is imported before the handler is set, so that Ctrl-C during an import prints no traceback.
"""

import atexit
import os
import signal
import sys
from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143  # by Ctrl-C, by SIGTERM


def main() -> int:
    """Run the command as a process of its own; returns its exit status."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:  # not under nohup, nor behind a shell's "&"
        signal.signal(signal.SIGINT, _leave)
        # Python ends by setting back its handlers, but lets an ignored signal be. The first that is
        # registered is the last to run.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    if getattr(sys, "frozen", False):  # `embedge bench` starts this program again as its worker
        from multiprocessing import freeze_support

        freeze_support()
    from embedge.cli.main import main as run

    sys.unraisablehook = _unraisable
    interrupted: list[None] = []

    def interrupt(*_: object) -> NoReturn:
        interrupted.append(None)
        raise KeyboardInterrupt

    try:
        if interruptible:
            signal.signal(signal.SIGINT, interrupt)
        status = run()
        if interruptible:
            signal.signal(signal.SIGINT, _leave)
        if interrupted:
            status = INTERRUPTED
    except BaseException as error:  # an import may make another exception of an interrupt
        if not interrupted and not isinstance(error, KeyboardInterrupt):
            raise
        status = INTERRUPTED
    if status in (INTERRUPTED, TERMINATED):  # threads that still compute are not waited for
        os._exit(status)
    return status


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Leave where Python would only print an interrupt, as it came within a callback."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    os._exit(INTERRUPTED if lost.exc_type is KeyboardInterrupt else TERMINATED)


def _leave(*_: object) -> NoReturn:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    raise SystemExit(main())
