"""Rank correlation and anisotropy by hand, and what an export reports of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedge.cli.main import main
from embedge.errors import ExportError, OptionError
from embedge.modelfile.file import read
from embedge_export import export_all, formats
from embedge_export.checks.evaluate import Pairs, anisotropy, rank_correlation, spearman
from embedge_export.quantization.calibration import calibration_texts

CALIBRATION = calibration_texts()[::4]
ANGLES = {"a": 0, "b": 10, "c": 40, "d": 100}


def encode(texts: list[str]) -> np.ndarray:
    angles = np.deg2rad([ANGLES[text] for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def pairs(*scores: float) -> Pairs:
    return Pairs(("a", "a", "a"), ("b", "c", "d"), np.array(scores, np.float64))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((5, 3, 0), 100.0),
        ((0, 3, 5), -100.0),
        ((3, 5, 0), 50.0),  # ranks 2 3 1 against 3 2 1: 1 - 6 * 2 / 24
        ((5, 5, 0), 86.6),  # a tie: ranks 2.5 2.5 1
    ],
)
def test_spearman_by_hand(scores: tuple[float, ...], expected: float) -> None:
    assert spearman(pairs(*scores), encode, "cosine") == pytest.approx(expected, abs=0.01)


def test_ties_share_their_mean_rank() -> None:
    """Ranks 3.5 1 3.5 2 against 1 2 3 4: products sum to -1, squares to 4.5 and 5."""
    found = rank_correlation(np.array([3.0, 1, 3, 2]), np.arange(4))
    assert found == pytest.approx(-1 / (4.5 * 5) ** 0.5)


def test_anisotropy_by_hand() -> None:
    """Lengths do not count: the cosines are 0, 1 / sqrt 2 and 1 / sqrt 2."""
    vectors = np.array([[2, 0], [0, 1], [3, 3]], np.float32)
    assert anisotropy(vectors) == pytest.approx(2 * 2**-0.5 / 3, abs=1e-4)
    assert anisotropy(np.eye(4, dtype=np.float32)) == 0
    assert anisotropy(np.ones((4, 3), np.float32)) == 1


def test_reading_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text('first\tsecond\tscore\na "b\tc\t1.5\r\n\nd\te\t-2\n', encoding="utf-8")
    found = Pairs.read(path)
    assert (found.left, found.right) == (('a "b', "d"), ("c", "e"))
    assert found.scores.tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\t1\nc\td\n", r"line 2: expected text, text and a number .* got 'c\\td'"),
        ("a\tb\t1\nc\td\thigh\n", "line 2: expected text, text and a number"),
        ("a\tb\t1\n", "holds 1 pairs; at least 2 are needed"),
        (None, "cannot be read"),
    ],
)
def test_invalid_pairs(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "pairs.tsv").write_text(text)
    with pytest.raises(OptionError, match=message):
        Pairs.read(tmp_path / "pairs.tsv")


def test_all_formats_at_once_with_an_evaluation(sentence_folder: Path, tmp_path: Path) -> None:
    lines = [f"the man is {a}\tthe man is {b}\t{score}\n" for a, b, score in (
        ("eating", "eating food", 5), ("a river", "food", 1), ("here", "there", 3)
    )]  # fmt: skip
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    (tmp_path / "texts").write_text("\n".join(CALIBRATION), encoding="utf-8")
    arguments = ["--all", "--eval", str(tmp_path / "pairs.tsv"), "--name", "tiny"]
    arguments += ["--calibration", str(tmp_path / "texts")]
    folder = tmp_path / "out"
    folder.mkdir()
    assert main(["export", str(sentence_folder), "-o", str(folder), *arguments]) == 0
    written = {path.name: read(path) for path in folder.iterdir()}
    assert set(written) == {"tiny.int8.onnx", "tiny.fp16.onnx", "tiny.fp32.onnx"}
    for format, others in (("fp32", []), ("fp16", ["fp16"]), ("int8", ["int8"])):
        file = written[f"tiny.{format}.onnx"]
        assert list(file.report["anisotropy"]) == sorted(["fp32", *others])
        assert file.report["spearman"]["pairs"] == 3
        assert set(file.report["spearman"]) == {"pairs", "source", "fp32", *others}
        assert file.settings.quantization.startswith(format)
    spearmans = written["tiny.fp16.onnx"].report["spearman"]
    assert spearmans["source"] == spearmans["fp32"] == spearmans["fp16"]


def test_a_set_of_which_one_fails_is_not_written(
    sentence_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = replace(formats.QUANTIZED["fp16"], mean_cosine=1.1)
    monkeypatch.setitem(formats.QUANTIZED, "fp16", strict)
    with pytest.raises(ExportError, match="verify: fp16 against fp32: mean cosine"):
        export_all(sentence_folder, tmp_path, calibration=CALIBRATION)
    assert list(tmp_path.iterdir()) == []
