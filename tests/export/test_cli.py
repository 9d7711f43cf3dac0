"""`embedge export` through the command itself."""

import json
import sys
from pathlib import Path

import pytest

from embedge.cli.main import main
from embedge.modelfile.file import read
from embedge_export import pipeline
from embedge_export.source.quiet import quiet
from embedge_export.steps import Notify


def test_export_prints_steps_and_report(
    sentence_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    arguments = ["export", str(sentence_folder), "-o", str(path), "--format", "fp32", "--json"]
    assert main([*arguments, "--name", "mine", "--license", "MIT", "--max-tokens", "128"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["fp32_against_source"]["cosine_min"] >= 0.99999
    for step in ("source", "trace", "graph", "verify", "pack"):
        assert any(line.startswith(step) for line in printed.err.splitlines())
    settings = read(path).settings
    assert (settings.name, settings.license, settings.max_tokens) == ("mine", "MIT", 128)


def test_what_is_overridden_is_on_the_card(
    sentence_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    arguments = ["--pooling", "cls", "--max-tokens", "100", "--format", "fp32", "--license", "a|b"]
    assert main(["export", str(sentence_folder), "-o", str(path), *arguments]) == 0
    capsys.readouterr()
    assert main(["info", str(path), "--card"]) == 0
    page = capsys.readouterr().out
    for row in (
        "| pooling | cls (overridden: the model itself says mean) |",
        "| max tokens | 100 (overridden: the model itself says 256) |",
        '| prompts | document "the ", query "how do i " |',
        "| source: repository | - |",
        "| license | a&#124;b |",
    ):
        assert row in page.splitlines()
    assert "| fp32 against source | cosine_mean 1.0, cosine_min " in page
    assert str(tmp_path) not in page


def test_steps_are_printed_while_other_libraries_are_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `step` does from its own thread, where loading or tracing takes long."""

    def loading(*arguments: object, notify: Notify, **options: object) -> dict[str, object]:
        with quiet():
            print("a bar of another library", file=sys.stderr)
            notify("source    still running, 15 s")
        return {}

    monkeypatch.setattr(pipeline, "export", loading)
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "model.onnx")]) == 0
    assert capsys.readouterr().err == "source    still running, 15 s\n"


def test_your_own_calibration_texts_change_the_file(sentence_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the river\n\nhow do i\nfood food food\n" * 20)
    for name, extra in (("own", ["--calibration", str(tmp_path / "texts.txt")]), ("ours", [])):
        assert main(["export", str(sentence_folder), "-o", str(tmp_path / name), *extra]) == 0
    assert read(tmp_path / "own").fingerprint != read(tmp_path / "ours").fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [__file__],
            f"embedge: source: {__file__} is a file; expected a recipe.toml, or the folder",
        ),
        ([""], "embedge: source: '': there is no such recipe or folder"),
        (
            ["https://huggingface.co/org/name"],
            "embedge: source: https://huggingface.co/org/name: the",
        ),
        (["./missing"], "embedge: source: ./missing: there is no such recipe or folder"),
        (["SOURCE", "--pooling", "median"], "embedge: source: expected pooling of mean"),
        (["SOURCE", "--calibration", "none.txt"], "embedge: --calibration none.txt cannot be"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    sentence_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(sentence_folder) if a == "SOURCE" else a for a in arguments]
    assert main(["export", *arguments, "-o", str(tmp_path / "m.onnx")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith(message)
    assert list(tmp_path.iterdir()) == []
