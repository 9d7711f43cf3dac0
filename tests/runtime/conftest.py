"""The tiny model, the default model, and a way to run Python in a fresh process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedge import Encoder

from . import tiny

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("tiny") / "tiny.onnx")


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
        return subprocess.CompletedProcess(
            result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
        )

    return run
