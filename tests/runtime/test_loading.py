"""Loading a file: what is checked first, and what a failure or a fork leaves."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from embedge import Encoder, ModelError, OptionError
from embedge.ort.loading import load, read_model

from . import tiny
from .tiny import field, node


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


def test_an_error_of_the_import_is_not_the_files(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "embedge.ort.probes", None)
    with pytest.raises(ImportError, match=r"embedge\.ort\.probes"):
        Encoder(tiny_file)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
@pytest.mark.skipif(sys.platform == "darwin", reason="no safe fork on this system")
@pytest.mark.parametrize("delay", [0.01, 0.03, 0.05])
def test_a_process_forked_while_the_first_encoder_is_made_can_make_its_own(
    check_forked: Callable[[str, str], None], delay: float
) -> None:
    """With the import half done, or with a lock of tokenizers held, it would hang."""
    check_forked(
        f"threading.Thread(target=Encoder).start()\ntime.sleep({delay})",
        "right = Encoder().encode('One text.').shape == (384,)",
    )
