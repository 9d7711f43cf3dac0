"""The interpreter ends while other threads encode: at once, without an abort or a message."""

import pytest

from .conftest import Run

# The thread would encode for ever: that the process ends at all shows that the work was stopped.
LEAVING = """
import itertools, sys, threading
from concurrent.futures import ThreadPoolExecutor
from embedge import Encoder
encoder = Encoder(threads={threads})
begun = threading.Event()
def texts():
    for number in itertools.count():
        if number == 400:
            begun.set()
        yield "a river bank " * (number % 40)
def work():
    for _ in encoder.encode_iter(texts()):
        pass
{start}
begun.wait()
sys.exit(7)
"""
STARTS = {
    "daemon": "threading.Thread(target=work, daemon=True).start()",
    "thread": "threading.Thread(target=work).start()",
    "several": "for _ in range(3): threading.Thread(target=work, daemon=True).start()",
    "executor": "pool = ThreadPoolExecutor(2)\nfor _ in range(5): pool.submit(work)",
    "foreign": "import _thread; _thread.start_new_thread(work, ())",
}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("start", STARTS)
def test_it_ends_at_once_and_silently(python: Run, start: str, threads: int) -> None:
    code = LEAVING.format(start=STARTS[start], threads=threads)
    result = python("-X", "faulthandler", "-W", "ignore", "-c", code)
    assert result.returncode == 7, result.stderr
    if start != "foreign":  # threads that Python did not start get an error, which it prints
        assert result.stderr == ""


def test_a_daemon_thread_that_encodes_again_gets_no_further(python: Run) -> None:
    code = """
import sys, threading
from embedge import Encoder
encoder = Encoder(threads=2)
begun = threading.Event()
def work():
    while True:
        try:
            encoder.encode(["a river"] * 50)
            begun.set()
        except Exception as error:
            print(error, flush=True)
threading.Thread(target=work, daemon=True).start()
begun.wait()
sys.exit(7)
"""
    result = python("-X", "faulthandler", "-c", code)
    assert (result.returncode, result.stdout, result.stderr) == (7, "", "")


def test_what_runs_at_exit_may_encode(python: Run) -> None:
    code = """
import atexit
from embedge import Encoder
encoder = Encoder(threads=2)
atexit.register(lambda: print(encoder.encode(["a river", "a bank", "a"]).shape))
"""
    result = python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "(3, 384)\n", "")


def test_a_thread_that_python_did_not_start_may_print_its_error(python: Run) -> None:
    """Python aborts where it ends meanwhile: it waits for as long as that takes, 0.05 s."""
    code = """
import _thread, threading, time
from embedge.ort import fork_guard
time.sleep = print
fork_guard._wait_at_exit()
known = threading.Event()
def work():
    threading.current_thread()
    known.set()
    threading.Event().wait()
_thread.start_new_thread(work, ())
known.wait()
"""
    result = python("-c", code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0.05\n", "")
