"""What the checks of check_processes share: options, texts, and the process's resources."""

import argparse
import ctypes
import random
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedge import Encoder

WORDS = ("a", "river", "bank", "resets", "its", "password", "naïve", "Zürich", "東京", "雨", "🙂")
TIMEOUT = 60  # seconds; a process that takes one second is taken to hang after these
SINGLE = 4  # texts that are encoded one at a time

Result = tuple[bool, str]  # whether the check passed, and its figures
Vectors = NDArray[np.float32]
Check = Callable[["Options"], Result]


class Options(argparse.Namespace):
    model: Path | None
    quick: bool
    idle: float


def texts(count: int = 200) -> list[str]:
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=chance.randrange(12))) for _ in range(count)]


def single_calls(encoder: Encoder, given: list[str]) -> Vectors:
    """The vectors of the first texts, each of a single-text call."""
    return np.stack([encoder.encode(text) for text in given[:SINGLE]])


def usage() -> tuple[int, int, float]:
    """File handles, threads and resident megabytes of this process.

    Freed memory is returned to the system first: glibc keeps between 0 and 40 MB of it.
    """
    getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        len(list(Path("/proc/self/task").iterdir())),
        pages * resource.getpagesize() / 2**20,
    )
