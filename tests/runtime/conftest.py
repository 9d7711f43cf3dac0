"""Encoders, and a way to run Python in a fresh process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedge import Encoder

Run = Callable[..., "subprocess.CompletedProcess[str]"]

FORKED = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
from embedge import Encoder
{before}
child = os.fork()
if child == 0:
    signal.alarm(30)
{both}
if child == 0:
    sys.exit(7 if right else 8)
print(right, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def encoder(tiny_file: Path) -> Encoder:
    """A fresh Encoder of the tiny model."""
    return Encoder(tiny_file, threads=1)


@pytest.fixture(scope="session")
def default() -> Encoder:
    """The model that ships with the package, on two threads."""
    return Encoder(threads=2)


@pytest.fixture
def python(tmp_path: Path) -> Run:
    """Run code, or arguments, in a fresh interpreter whose home is an empty folder."""
    home = tmp_path / "home"
    home.mkdir()

    def run(
        *arguments: str, stdin: bytes | str = "", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        if len(arguments) == 1:
            arguments = ("-c", *arguments)
        result = subprocess.run(
            [sys.executable, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            cwd=tmp_path,
            timeout=120,
            env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
            | environment,
        )
        # The child's print() ends lines as its system does.
        out, err = (
            stream.decode().replace(os.linesep, "\n") for stream in (result.stdout, result.stderr)
        )
        return subprocess.CompletedProcess(result.args, result.returncode, out, err)

    return run


@pytest.fixture
def check_forked(python: Run) -> Callable[[str, str], None]:
    """Fork after ``before``; ``both`` has to find ``right`` in both processes, which both end."""

    def check(before: str, both: str) -> None:
        # tokenizers 0.20 would print that it is not parallel after a fork.
        result = python(FORKED.format(before=before, both=both), TOKENIZERS_PARALLELISM="false")
        assert result.stderr == ""
        assert result.stdout == "True 7\n"

    return check
