"""What importing and using the package does to a process and to the machine: next to nothing."""

from pathlib import Path

import pytest

from .conftest import Run

HEAVY = ("torch", "transformers", "optimum", "onnx", "huggingface_hub", "pandas", "embedge_export")

WATCHED = """
import os, sys
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"):
        seen.append((event, str(arguments)))
    elif event in ("subprocess.Popen", "os.mkdir", "os.rename", "os.remove"):
        seen.append((event, str(arguments)))
    elif event == "open":
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append((event, str(path)))
sys.dont_write_bytecode = True
sys.addaudithook(watch)
{work}
print("seen", seen)
"""
USE = """
from embedge import Encoder
encoder = Encoder({model!r}, threads=2)
encoder.encode(["a b", "b", "a b c a b c a b c"] * 100, overflow="mean")
encoder.count_tokens("a")
"""


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        (
            "embedge, embedge.cli.main",
            (*HEAVY, "onnxruntime"),
        ),  # which comes with the first Encoder
        ("embedge.encoder, embedge.cli.main, embedge.ort.probes", HEAVY),
    ],
)
def test_importing_loads_nothing_heavy(python: Run, modules: str, without: tuple[str, ...]) -> None:
    result = python(
        f"import {modules}, sys\nprint([name for name in {without!r} if name in sys.modules])"
    )
    assert result.stdout == "[]\n"
    assert result.stderr == ""


def test_importing_connects_to_nothing_and_writes_nothing(python: Run, tmp_path: Path) -> None:
    result = python(WATCHED.format(work="import embedge.encoder, embedge.ort.probes"))
    assert result.stdout == "seen []\n", result.stderr
    assert list((tmp_path / "home").iterdir()) == []


def test_encoding_connects_to_nothing_and_writes_nothing(
    python: Run, tmp_path: Path, tiny_file: Path
) -> None:
    result = python(WATCHED.format(work=USE.format(model=str(tiny_file))))
    assert result.stdout == "seen []\n", result.stderr
    assert result.stderr == ""
    assert list((tmp_path / "home").iterdir()) == []


def test_the_watch_sees_what_it_should(python: Run) -> None:
    work = "open('x', 'w').close()\nimport socket\nsocket.socket().connect_ex(('127.0.0.1', 9))"
    result = python(WATCHED.format(work=work))
    assert "('open', 'x')" in result.stdout
    assert "socket.connect" in result.stdout


def test_a_hostile_file_makes_the_reader_open_no_other(
    python: Run, tmp_path: Path, tiny_file: Path
) -> None:
    """After the imports, only the model itself and the system's CPU limits are opened."""
    work = f"""
import embedge.encoder, embedge.ort.probes
opened = []
def note(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))
sys.addaudithook(note)
embedge.Encoder({str(tiny_file)!r}).encode("a b")
ours = ({str(tiny_file)!r}, "/sys/fs/cgroup", "/proc/self/cgroup")
print([path for path in opened if not path.startswith(ours)])
"""
    result = python(WATCHED.format(work=work))
    assert result.stdout == "[]\nseen []\n", result.stderr
