"""The README's examples are run: code blocks with an output block after them must print it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from embedge.modelfile.default import default_model, read_default

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
BLOCKS = [(m[1], m[2], m[3]) for m in FENCE.finditer(README)]

PYTHON = [(code, output) for kind, code, output in BLOCKS if kind == "python"]
CONSOLE = [code for kind, code, _ in BLOCKS if kind == "console"]


def run(command: list[str], folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True
    )


def close(got: str, expected: str) -> bool:
    """Equal but for the last digits of numbers, which may differ between CPU families."""
    number = re.compile(r"-?\d+\.\d+")
    if number.sub("#", got).split() != number.sub("#", expected).split():
        return False
    pairs = zip(number.findall(got), number.findall(expected), strict=True)
    return all(abs(float(a) - float(b)) <= 0.002 for a, b in pairs)


def test_the_first_example_is_near_the_top() -> None:
    lines = README.splitlines()
    assert "```python" in lines[:25]
    assert "```text" in lines[:30]


@pytest.mark.parametrize(("code", "output"), PYTHON, ids=range(len(PYTHON)))
def test_python_examples(code: str, output: str | None, tmp_path: Path) -> None:
    if "embedge_export" in code:
        pytest.importorskip("optimum", reason="needs the export extra: pip install '.[export]'")
    (tmp_path / "model.onnx").symlink_to(default_model())
    (tmp_path / "models").symlink_to(ROOT / "models")
    result = run([sys.executable, "-c", code], tmp_path)
    assert result.returncode == 0, result.stderr
    if output is not None:
        assert close(result.stdout, output), result.stdout


@pytest.mark.parametrize("block", CONSOLE, ids=range(len(CONSOLE)))
def test_console_examples(block: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to(default_model())
    (tmp_path / "sentences.txt").write_text("A man is eating food.\nSomeone is having a meal.\n")
    for example in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, expected = example.partition("\n")
        result = run(["bash", "-c", command], tmp_path)
        assert result.returncode == 0, result.stderr
        lines, shown = result.stdout.splitlines(), expected.rstrip("\n").splitlines()
        for line in shown:
            if line == "...":  # the rest is left out
                break
            printed = lines.pop(0)
            if line.endswith(" ..."):
                line = line.removesuffix(" ...")
                printed = " ".join(printed.split()[: len(line.split())])
            assert close(printed, line), f"{shlex.quote(command)} printed {printed!r}"


def test_every_module_is_on_the_map() -> None:
    for package in ("runtime/embedge", "export/embedge_export"):
        for path in (ROOT / package).glob("*.py"):
            if path.stem not in ("__init__", "__main__"):
                assert f"`{path.name}`" in README, f"{path.name} is missing from the README's map"


def test_every_file_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:tests|scripts|models)/[\w./-]+)", README)
    named += re.findall(r"\]\((?!https?:|#)([\w./-]+)\)", README)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_default_models_card_says_what_its_file_says() -> None:
    card = (ROOT / "models/all-MiniLM-L6-v2/README.md").read_text(encoding="utf-8")
    settings = read_default().settings
    repository = settings.source["repository"]
    assert settings.normalized
    for fact in (
        f"# {settings.name}, {settings.quantization.partition('-')[0]}\n",
        f"vectors of {settings.dim} components of unit length",
        f"cut at {settings.max_tokens} tokens",
        f"| file | `{default_model().name}` |",
        f"| source | [{repository}](https://huggingface.co/{repository}) |",
        f"| weights | SHA-256 `{settings.source['weights_sha256']}` |",
        f"| architecture | {settings.source['architecture'].upper()}, ",
        f"| pooling | {settings.pooling} over ",
        f"| licence | {settings.licence} ",
    ):
        assert fact in card


def test_every_error_is_documented() -> None:
    import embedge

    for name in embedge.__all__:
        if name.endswith(("Error", "Warning")):
            assert f"`{name}`" in README


def test_every_option_of_the_command_line_is_documented() -> None:
    for command in ("embed", "info", "verify", "export"):
        shown = run([sys.executable, "-m", "embedge", command, "--help"], ROOT).stdout
        for option in set(re.findall(r"--[a-z-]+", shown)) - {"--help"}:
            assert option in README, f"embedge {command} {option} is not in the README"
