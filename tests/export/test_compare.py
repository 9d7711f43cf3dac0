"""`embedge compare`: figures by hand, and the command on two files of one model."""

import json
import xml.etree.ElementTree as ElementTree
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest

from embedge.errors import OptionError
from embedge_export import compare, export
from embedge_export.quantization.calibration import calibration_texts


def command(*arguments: str) -> int:
    parser = ArgumentParser()
    compare.add_arguments(parser)
    return compare.run(parser.parse_args(arguments))


def test_neighbours_kept_by_hand() -> None:
    """On a line of angles 0, 10, 30, 70: B swaps the last two, so two texts lose a neighbour."""
    angles = np.deg2rad([0, 10, 30, 70])
    a = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    b = a[[0, 1, 3, 2]]
    assert compare.neighbours_kept(a, a, 1).tolist() == [1, 1, 1, 1]
    assert compare.neighbours_kept(a, b, 1).tolist() == [1, 1, 0, 0]
    assert compare.neighbours_kept(a, b, 3).tolist() == [3, 3, 3, 3]


def test_neighbours_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 8)).astype(np.float32)
    b = a + rng.normal(size=a.shape).astype(np.float32) / 2
    whole = compare.neighbours_kept(a, b)
    monkeypatch.setattr(compare, "ROWS", 7)
    assert compare.neighbours_kept(a, b).tolist() == whole.tolist()
    assert 0 < whole.mean() < 10


@pytest.fixture(scope="module")
def files(sentence_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    folder = tmp_path_factory.mktemp("compared")
    for format in ("fp32", "fp16"):
        export(sentence_folder, folder / format, format=format)
    texts = [text for text in calibration_texts() if len(text) < 150][:40]
    (folder / "texts").write_text("\n".join([*texts, "", *texts]), encoding="utf-8")
    return str(folder / "fp32"), str(folder / "fp16"), str(folder / "texts")


def test_the_command(
    files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, texts = files
    picture = tmp_path / "picture.svg"
    arguments = [first, second, "--texts", texts]
    assert command(*arguments, "--json", "--picture", str(picture)) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["texts"] == 40  # each once
    assert figures["cosine_percentiles"]["0"] > 0.999
    assert figures["kept_of_10"] > 9.5
    assert figures["anisotropy"]["A"] == pytest.approx(figures["anisotropy"]["B"], abs=1e-3)
    drawn = ElementTree.parse(picture).getroot()
    bars = [float(r.attrib["height"]) for r in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(bars) == 1 + 30 + 11
    assert max(bars[1:31]) == max(bars[31:]) == 160
    assert command(*arguments) == 0
    assert "kept of the 10 neighbours" in capsys.readouterr().out


def test_what_cannot_be_compared(
    files: tuple[str, str, str], transformer_folder: Path, tmp_path: Path
) -> None:
    first, second, texts = files
    (tmp_path / "few").write_text("one\ntwo\n")
    with pytest.raises(OptionError, match=r"expected more than 10 different texts .* got 2"):
        command(first, second, "--texts", str(tmp_path / "few"))
    with pytest.raises(OptionError, match=r"--texts .*missing cannot be read"):
        command(first, second, "--texts", str(tmp_path / "missing"))
    export(transformer_folder, tmp_path / "wide", format="fp32")
    with pytest.raises(OptionError, match=r"gives 24 components and .* 32; only vectors of the"):
        command(first, str(tmp_path / "wide"), "--texts", texts)
    with pytest.raises(OptionError, match="--picture"):
        command(first, second, "--texts", texts, "--picture", str(tmp_path / "no" / "p.svg"))
