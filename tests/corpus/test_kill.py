"""SIGKILL, a full disk and Ctrl-C, in real processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_resume"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")


def test_killed_anywhere_it_goes_on_to_the_same_bytes(model_file: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--model", str(model_file), "--form", "v.npy"]
    command += ["--kills", "5", "--texts", "1200", "--chunk", "64"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    everywhere, at_random = (
        list(map(int, re.findall(r"\d+", line))) for line in result.stdout.splitlines()
    )
    assert everywhere[0] >= 50
    assert everywhere[1] == everywhere[2] >= 40
    assert at_random[0] >= 5
    assert at_random[1] == at_random[2]


def command(model: Path, folder: Path, first: str = "") -> list[str]:
    """A job of 20,000 texts in a process that runs ``first`` before."""
    texts = folder / "a.jsonl"
    if not texts.exists():
        lines = (json.dumps({"text": "a b c " * (i % 5)}) + "\n" for i in range(20_000))
        texts.write_text("".join(lines))
    arguments = ["embed", str(texts), "--output", str(folder / "v.npy"), "--threads", "1"]
    run = f"{first}\nfrom embedge.cli.main import main\nimport sys\nsys.exit(main())"
    return [sys.executable, "-c", run, *arguments, "--json", "--model", str(model)]


@pytest.fixture(scope="module")
def whole(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output of a job that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(model_file, folder), check=True, capture_output=True)
    return (folder / "v.npy").read_bytes()


def resumes(model: Path, folder: Path, whole: bytes) -> None:
    again = subprocess.run(command(model, folder), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (folder / "v.npy").read_bytes() == whole
    assert json.loads(again.stdout)["texts"] == 20_000
    assert sorted(path.name for path in folder.iterdir()) == ["a.jsonl", "v.npy", "v.npy.json"]


def test_a_full_disk(model_file: Path, tmp_path: Path, whole: bytes) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))"
    full = subprocess.run(command(model_file, tmp_path, limit), capture_output=True, text=True)
    assert full.returncode == 2
    assert full.stdout == ""
    assert re.fullmatch(
        r"embedge: .*v\.npy: cannot be written \(.*\); fix the cause and rerun the same command to "
        r"resume\n",
        full.stderr,
    )
    assert not (tmp_path / "v.npy").exists()
    resumes(model_file, tmp_path, whole)


SIGNAL_AT_A_COMMIT = """
import signal
from embedge.corpus.journal import Journal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's may be ignored
append = Journal.append
def interrupted(self, chunk, state):
    append(self, chunk, state)
    signal.raise_signal(signal.{name})
Journal.append = interrupted
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal(name: str, status: int, model_file: Path, tmp_path: Path, whole: bytes) -> None:
    first = SIGNAL_AT_A_COMMIT.format(name=name)
    stopped = subprocess.run(command(model_file, tmp_path, first), capture_output=True, text=True)
    assert (stopped.returncode, stopped.stdout) == (status, "")
    assert stopped.stderr == "embedge: interrupted; rerun the same command to resume\n"
    assert (tmp_path / ".v.npy.embedge").exists()
    resumes(model_file, tmp_path, whole)
