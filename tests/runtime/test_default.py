"""The model that ships with the package is the one that the package was made with."""

from pathlib import Path

import pytest

import embedge.modelfile.default
from embedge import ModelError
from embedge.modelfile.default import DEFAULT_FINGERPRINT, default_model, read_default

from . import tiny


def test_the_default_file_has_the_fingerprint_that_the_code_says() -> None:
    file = read_default()
    assert file.path == default_model()
    assert file.fingerprint == DEFAULT_FINGERPRINT


def test_another_file_in_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny.write(tmp_path / "swapped.onnx")
    monkeypatch.setattr(embedge.modelfile.default, "default_model", lambda: other)
    message = (
        rf"swapped\.onnx: the model that ships .* {DEFAULT_FINGERPRINT[:16]}\.\.\., but this file "
        r"has [0-9a-f]{16}\.\.\.; install embedge again"
    )
    with pytest.raises(ModelError, match=message):
        read_default()
