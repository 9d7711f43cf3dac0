"""Loading a file: what is checked first, and what a failure or a fork leaves."""

import copy
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import Encoder, ModelError, OptionError
from embedge.ort.loading import load, read_model

from . import tiny
from .tiny import field, node


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted")
@pytest.mark.parametrize("model", ["model.onnx", b"model.onnx", Path("model.onnx"), ""])
def test_a_relative_path_in_a_deleted_folder_is_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(ModelError, match=r"the current folder.* is not there any more"):
        Encoder(model)


def test_a_dim_that_makes_no_sense_is_refused_before_anything_is_loaded(tiny_file: Path) -> None:
    with pytest.raises(
        OptionError, match="expected dim to be an integer from 1 to 2, or None; got 9"
    ):
        Encoder(tiny_file, dim=9, providers="nonsense")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiny.model(tokenizer="{}"), "the tokenizer in the file cannot be used"),
        (
            tiny.model(tiny.graph(extra=field(1, node("Gather", ["table"], "y")))),
            "onnxruntime cannot load it",
        ),
    ],
    ids=["tokenizer", "graph"],
)
def test_a_failure_is_ours_and_leaves_no_thread(tmp_path: Path, data: bytes, message: str) -> None:
    before = threading.active_count()
    file = read_model(tiny.write(tmp_path / "x.onnx", data))
    with pytest.raises(ModelError, match=message):
        load(file, "cpu", 1)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("installed", "fits"), [("1.16.3", False), ("1.17.0", True), ("1.20.1", True), ("2.0", True)]
)
def test_an_onnxruntime_too_old_for_a_file_is_named(
    installed: str, fits: bool, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedge.ort.providers.ort.__version__", installed)
    if fits:
        Encoder(tiny_file)
        return
    message = f"expected onnxruntime 1.17 or newer, got {installed}; upgrade it with 'python -m pip"
    with pytest.raises(ModelError, match=message):
        Encoder(tiny_file)


def test_an_error_of_the_import_is_not_the_files(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "embedge.ort.probes", None)
    with pytest.raises(ImportError, match=r"embedge\.ort\.probes"):
        Encoder(tiny_file)


def test_a_path_may_be_bytes_and_stays_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tmp_path / "x.onnx")
    monkeypatch.chdir(tmp_path)
    assert Encoder(b"x.onnx").info["path"] == str(tmp_path / "x.onnx")
    with pytest.raises(OptionError, match="expected model to be the path of a model file, got int"):
        Encoder(5)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_integers(tiny_file: Path) -> None:
    encoder = Encoder(tiny_file, threads=np.int64(2), dim=np.int32(1))  # type: ignore[arg-type]
    assert encoder.dim == 1
    assert encoder.encode(["a", "a b"]).shape == (2, 1)


class Named(Encoder):
    """Takes other arguments than Encoder, and keeps something of its own."""

    def __init__(self, label: str, path: Path) -> None:
        super().__init__(path, threads=1)
        self.label = label


def test_a_pickled_subclass_keeps_its_class_and_what_it_added(tiny_file: Path) -> None:
    encoder = Named("mine", tiny_file)
    for twin in (pickle.loads(pickle.dumps(encoder)), copy.copy(encoder)):
        assert type(twin) is Named
        assert twin.label == "mine"
        assert twin.encode("a b").tolist() == encoder.encode("a b").tolist()
