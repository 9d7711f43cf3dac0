"""The model that ships with the package is the one that the package was made with."""

import sys
import zipfile
from pathlib import Path

import pytest

import embedge.modelfile.default
from embedge import Encoder, ModelError
from embedge.modelfile.default import DEFAULT_FINGERPRINT, default_model, read_default

from . import tiny
from .conftest import Run


def test_the_default_file_has_the_fingerprint_that_the_code_says() -> None:
    file = read_default()
    assert file.path == default_model()
    assert file.fingerprint == DEFAULT_FINGERPRINT


def test_another_file_in_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny.write(tmp_path / "swapped.onnx")
    monkeypatch.setattr(embedge.modelfile.default, "_find", lambda: other)
    message = (
        rf"swapped\.onnx: the model that ships .* {DEFAULT_FINGERPRINT[:16]}\.\.\., but this file "
        r"has [0-9a-f]{16}\.\.\.; install embedge again"
    )
    with pytest.raises(ModelError, match=message):
        read_default()


@pytest.mark.parametrize(
    ("frozen", "advice"),
    [(False, "installation .*; install embedge again"), (True, "bundle .*--collect-data embedge")],
)
def test_a_missing_file_is_told_with_what_to_do(
    frozen: bool, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedge.modelfile.default, "_PACKAGE", tmp_path / "site" / "embedge")
    monkeypatch.setattr(embedge.modelfile.default, "_NAME", "none.int8.onnx")
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    if not frozen:
        monkeypatch.delattr(sys, "frozen")
    with pytest.raises(ModelError, match=rf"none\.int8\.onnx is missing from this {advice}"):
        read_default()


IN_A_ZIP = """
import os, sys
sys.path.insert(0, sys.argv[1])
import embedge
from embedge.modelfile.default import default_model, read_default
assert embedge.__file__.startswith(sys.argv[1]), embedge.__file__
print(read_default().fingerprint)
print(embedge.Encoder().encode("A man is eating food.").tobytes().hex())
path = default_model()
print(embedge.Encoder(path).fingerprint, path == default_model())
print(path, file=sys.stderr)
"""


def test_it_is_read_out_of_a_zip(tmp_path: Path, python: Run, default: Encoder) -> None:
    package, archive = Path(embedge.__file__).parent, tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in package.rglob("*.py"):
            target.write(path, path.relative_to(package.parent))
        target.write(default_model(), f"embedge/models/{default_model().name}")
    result = python("-c", IN_A_ZIP, str(archive))
    vector = default.encode("A man is eating food.").tobytes().hex()
    assert result.stdout == f"{DEFAULT_FINGERPRINT}\n{vector}\n{DEFAULT_FINGERPRINT} True\n"
    assert not Path(result.stderr.strip()).exists()  # unpacked as long as the process lived
