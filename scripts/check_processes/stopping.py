"""Calls and processes that are interrupted, cancelled, or left while they encode."""

import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
from common import TIMEOUT, Options, Result, Vectors, texts
from numpy.typing import NDArray

from embedge import Encoder

INTERRUPTED = """
import signal, sys, time
import numpy as np
from embedge import Encoder
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
encoder = Encoder(sys.argv[1] or None, threads=2)
texts = [f"a river {i} " * (i % 20) for i in range(200_000)]
right = encoder.encode(texts[:20])
for attempt in range(int(sys.argv[2])):
    try:
        print("started", flush=True)
        encoder.encode(texts)
        sys.exit("not interrupted")
    except KeyboardInterrupt:
        pass
    assert np.array_equal(encoder.encode(texts[:20]), right)
    print("usable", flush=True)
"""


def interrupt(options: Options) -> Result:
    """Ctrl-C during an encode"""
    times, chance = 3 if options.quick else 50, random.Random(0)
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(options.model or ""), str(times)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    slowest, usable = 0.0, 0
    for _ in range(times):
        if process.stdout.readline() != "started\n":
            break
        time.sleep(chance.uniform(0.05, 0.5))
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        usable += process.stdout.readline() == "usable\n"
        slowest = max(slowest, time.monotonic() - start)
    status = process.wait(TIMEOUT)
    figure = f"{times} times, {usable} times usable afterwards; at most {1000 * slowest:.0f} ms"
    return usable == times and status == 0, figure


def exception(options: Options) -> Result:
    """an exception in one worker reaches the caller and stops the rest"""
    encoder = Encoder(options.model, threads=2)
    given = [f"{'a ' * (i % 9)}{i}" for i in range(4000)]
    session, calls, failing_call, lock = encoder._pipeline.session, 0, 0, threading.Lock()
    run = session.run

    def failing(ids: NDArray[np.int64]) -> Vectors:
        nonlocal calls
        with lock:
            calls += 1
            if calls == failing_call:
                raise LookupError("the fifth")
        if failing_call:
            time.sleep(0.02)  # as a larger model would take
        return run(ids)

    session.run = failing
    right = encoder.encode(given)
    total, calls, failing_call = calls, 0, 5
    try:
        encoder.encode(given)
        caught = "nothing"
    except LookupError as error:
        caught = str(error)
    stopped_at = calls
    time.sleep(0.2)
    late = calls - stopped_at
    session.run = run
    same = np.array_equal(encoder.encode(given), right)
    good = caught == "the fifth" and late == 0 and stopped_at < total // 2 and same
    return good, f"failed in call 5 of {total}, ended after {stopped_at}"


LEAVING = """
import itertools, sys, threading, time
from embedge import Encoder
encoder = Encoder(sys.argv[1] or None, threads=int(sys.argv[2]))
begun = threading.Event()
def texts():
    for number in itertools.count():
        if number == 300:
            begun.set()
        yield "a river bank resets its password " * (number % 60)
def work():
    for _ in encoder.encode_iter(texts()):
        pass
threading.Thread(target=work, daemon=sys.argv[3] == "daemon").start()
begun.wait()
time.sleep(float(sys.argv[4]))
print("leaving", flush=True)
sys.exit(7)
"""


def quit(options: Options) -> Result:  # the name of the check on the command line
    """exiting while another thread encodes"""
    chance, good, slowest = random.Random(0), 0, 0.0
    ways = [(threads, kind) for threads in (1, 2) for kind in ("daemon", "thread")]
    ways *= 1 if options.quick else 10
    for threads, kind in ways:
        delay = chance.uniform(0, 0.2)
        process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-c", LEAVING),
                *(str(options.model or ""), str(threads), kind, str(delay)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        start = time.monotonic()
        _, said = process.communicate(timeout=TIMEOUT)
        slowest = max(slowest, time.monotonic() - start)
        good += process.returncode == 7 and said == ""
    figure = f"{len(ways)} times, {good} silent with their status; at most {1000 * slowest:.0f} ms"
    return good == len(ways) and slowest < 1, figure


def _seconds(command: list[str], given: bytes = b"") -> float:
    """How long a process runs."""
    start = time.monotonic()
    subprocess.run(command, input=given, capture_output=True, check=True)
    return time.monotonic() - start


def command(options: Options) -> Result:
    """exit statuses of the command after Ctrl-C at swept moments"""
    given = "\n".join(["a river bank"] * 3000).encode()
    line = [sys.executable, "-X", "faulthandler", "-m", "embedge", "embed"]
    line += ["--model", str(options.model)] if options.model else []
    # Until the command has set its own handler, Python handles the signal.
    first = 2 * max(_seconds([sys.executable, "-c", "import embedge.__main__"]) for _ in range(5))
    whole = _seconds(line, given)
    statuses: dict[int, int] = {}
    traces = 0
    times = 20 if options.quick else 200
    for number in range(times):
        process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        killer = threading.Timer(
            first + whole * (number * 37 % times) / times,
            process.send_signal,
            [signal.SIGINT],
        )
        killer.start()
        _, said = process.communicate(given, timeout=TIMEOUT)
        killer.cancel()
        statuses[process.returncode] = statuses.get(process.returncode, 0) + 1
        traces += b"Traceback" in said or b"Fatal" in said
    shown = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    return set(statuses) <= {0, 130} and not traces, f"{shown}; {traces} tracebacks"


def cancel(options: Options) -> Result:
    """micro-batches started after a progress function has raised"""
    encoder, late = Encoder(options.model, threads=2), 0
    session, raised = encoder._pipeline.session, threading.Event()
    run = session.run

    def noted(ids: NDArray[np.int64]) -> Vectors:
        nonlocal late
        late += raised.is_set()
        return run(ids)

    def stop(done: int, total: int | None) -> None:
        raised.set()
        raise LookupError

    session.run = noted
    times = 20 if options.quick else 200
    for _ in range(times):
        raised.clear()
        with suppress(LookupError):
            encoder.encode(texts(400), progress=stop)
    session.run = run
    return late <= times, f"{times} times cancelled, {late} more started, with 2 threads"
