"""SIGKILL, a full disk and Ctrl-C, in real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
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
    assert everywhere[0] >= 40
    assert everywhere[1] == everywhere[2] >= 30
    assert at_random[0] >= 5
    assert at_random[1] == at_random[2]


def command(model: Path, folder: Path) -> list[str]:
    texts = folder / "a.jsonl"
    if not texts.exists():
        lines = (json.dumps({"text": "a b c " * (i % 5)}) + "\n" for i in range(20_000))
        texts.write_text("".join(lines))
    arguments = ["embed", str(texts), "--output", str(folder / "v.npy"), "--threads", "1"]
    return [sys.executable, "-m", "embedge", *arguments, "--json", "--model", str(model)]


def test_a_full_disk(model_file: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run(command(model_file, whole), check=True, capture_output=True)
    limit = "import resource, runpy, sys; sys.argv = sys.argv[1:];"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000));"
    limit += "runpy.run_module('embedge', run_name='__main__')"
    run = command(model_file, tmp_path)
    full = subprocess.run([sys.executable, "-c", limit, *run[2:]], capture_output=True, text=True)
    assert full.returncode == 2
    assert full.stdout == ""
    assert re.fullmatch(
        r"embedge: .*v\.npy: cannot be written \(File too large\); see to it and run the same "
        r"command again: it goes on where it was\n",
        full.stderr,
    )
    assert not (tmp_path / "v.npy").exists()
    again = subprocess.run(run, capture_output=True, text=True)
    assert again.returncode == 0
    assert (tmp_path / "v.npy").read_bytes() == (whole / "v.npy").read_bytes()
    assert json.loads(again.stdout)["texts"] == 20_000


def test_ctrl_c(model_file: Path, tmp_path: Path) -> None:
    run = command(model_file, tmp_path)
    process = subprocess.Popen(
        run,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # It is ignored where a shell's background job runs the tests.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    journal = tmp_path / ".v.npy.embedge" / "journal.json"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if journal.exists() and json.loads(journal.read_text())["state"]["texts"]:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == (
        "",
        "embedge: interrupted; run the same command again to go on where it was\n",
    )
    assert subprocess.run(run, capture_output=True).returncode == 0
    assert (tmp_path / "v.npy").exists()
    assert not journal.parent.exists()
