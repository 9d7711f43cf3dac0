"""Short runs of the scripts that fuzz model files and try processes; the long ones are by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
posix = pytest.mark.skipif(sys.platform != "linux", reason="these scripts need Linux")


def run(*arguments: str | Path) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, timeout=300, check=False
    )
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    return output


@posix
def test_mutated_files_are_refused_or_give_unit_vectors(tmp_path: Path) -> None:
    script = SCRIPTS / "fuzz_modelfile"
    found = run(script, "--engine", "own", "--files", "150", "--seed", "3", "--keep", tmp_path)
    assert ", 0 broken" in found
    assert ", 0 accepted" not in found
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize(
    "check", ["threads", "fork", "spawn", "interrupt", "exception", "left", "affinity"]
)
def test_processes(check: str, tiny_file: Path) -> None:
    found = run(SCRIPTS / "check_processes", "--quick", "--only", check, "--model", tiny_file)
    assert found.endswith("| holds |\n")
