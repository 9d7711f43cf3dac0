"""A pipeline whose micro-batches wait to be let through, and a child process."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from embedge import Encoder

SERVE = (sys.executable, "-m", "embedge", "serve")
PATIENCE = 60  # seconds after which what hangs is ended, so that a fault fails a test


class GatedPipeline:
    """The pipeline of an Encoder whose micro-batches run one by one, when they are let through."""

    def __init__(self, encoder: Encoder) -> None:
        self._pipeline = encoder._pipeline
        self.settings = encoder._pipeline.settings
        self.tokenize, self.finish = self._pipeline.tokenize, self._pipeline.finish
        self.text_vectors = self._pipeline.text_vectors
        self.batches: list[list[list[int]]] = []  # that were begun
        self.fault: Exception | None = None
        self._begun, self._free = threading.Semaphore(0), threading.Semaphore(0)

    def run(self, ids: list[list[int]]) -> Any:
        self.batches.append(ids)
        self._begun.release()
        assert self._free.acquire(timeout=PATIENCE)
        if self.fault is not None:
            raise self.fault
        return self._pipeline.run(ids)

    def wait_for_batch(self) -> None:
        """Return when one more micro-batch has begun."""
        assert self._begun.acquire(timeout=PATIENCE)

    def let_through(self, batches: int = 1_000_000) -> None:
        self._free.release(batches)


@pytest.fixture
def encoder(tiny_file: Path) -> Encoder:
    return Encoder(tiny_file, threads=1)


@pytest.fixture
def gated(encoder: Encoder) -> GatedPipeline:
    """Has ``encoder`` wait."""
    pipeline = GatedPipeline(encoder)
    encoder._pipeline = pipeline
    return pipeline


class Child:
    """`embedge serve`, or another ``program``, as a child process."""

    def __init__(self, *arguments: str, program: Sequence[str] = SERVE, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def send(self, *lines: Any) -> None:
        """Send bytes as they are, and other values as lines of JSON."""
        for line in lines:
            self.stdin.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        self.stdin.flush()

    def read(self) -> dict[str, Any]:
        line = self.stdout.readline()
        assert line.endswith(b"\n"), "the child has ended"
        value: dict[str, Any] = json.loads(line)
        return value

    def ask(self, *lines: Any) -> dict[str, Any]:
        self.send(*lines)
        return self.read()

    def end(self) -> tuple[list[dict[str, Any]], int]:
        """Close the input; the answers that still came, and the exit status."""
        self.stdin.close()
        answers = [json.loads(line) for line in self.stdout]
        return answers, self.process.wait()


Start = Callable[..., Child]


@contextmanager
def children() -> Iterator[Start]:
    """Start children that are killed when the test has ended, or takes too long."""
    started: list[tuple[Child, threading.Timer]] = []

    def start(*arguments: str, **options: Any) -> Child:
        child = Child(*arguments, **options)
        timer = threading.Timer(PATIENCE, child.process.kill)
        timer.start()
        started.append((child, timer))
        return child

    try:
        yield start
    finally:
        for child, timer in started:
            timer.cancel()
            child.process.kill()
            child.process.wait()
            child.stdout.close()
            with suppress(BrokenPipeError):
                child.stdin.close()


@pytest.fixture
def start() -> Iterator[Start]:
    with children() as start:
        yield start
