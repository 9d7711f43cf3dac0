import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import CorpusError, Encoder
from embedge.corpus.encoding import RowOptions
from embedge.corpus.layout import LAYOUTS
from embedge.corpus.rows import BadRow
from embedge.corpus.saved import (
    check_fingerprint,
    open_vectors,
    read_metadata,
    verify_vectors,
)
from embedge.corpus.vectors import embed_now

from .conftest import MakeCorpus, embed_corpus

TEXTS = ["a", "b", "a c", "", "b a"]
LINES = "".join(json.dumps({"id": f"k{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS))


@pytest.mark.parametrize("dtype", LAYOUTS)
@pytest.mark.parametrize("form", ["npy", "jsonl", "parquet", "arrow"])
def test_vectors_made_before(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, form: str, dtype: str
) -> None:
    if form in ("parquet", "arrow"):
        pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    output = tmp_path / f"v.{form}"
    embed_corpus(encoder, corpus({"a.jsonl": LINES}, id="id"), output, dtype=dtype)
    metadata = read_metadata(output)
    assert metadata is not None
    check_fingerprint(output, metadata, "tiny", encoder.fingerprint)
    with open_vectors(output, metadata) as vectors:
        layout = LAYOUTS[dtype]
        expected = layout.load(layout.store(encoder.encode_document(TEXTS)), 16)
        assert np.array_equal(vectors.block(1, 3), expected[1:4])
        assert len(vectors) == 5
        assert vectors.similarity == "cosine"
        assert vectors.find([4, 0]) == {0: ("k0", None), 4: ("k4", None)}
        assert vectors.find([]) == {}


def test_ids_that_are_the_rows(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), output)
    with open_vectors(output) as vectors:
        assert vectors.find([2]) == {2: (2, None)}


def test_files_that_are_not_vectors(corpus: MakeCorpus, tmp_path: Path) -> None:
    corpus({"a.jsonl": LINES, "a.txt": "a"})
    assert read_metadata(tmp_path / "a.jsonl") is None
    assert read_metadata(tmp_path / "a.txt") is None
    assert read_metadata(tmp_path / "none.txt") is None
    assert read_metadata(tmp_path) is None
    np.save(tmp_path / "v.npy", np.ones((2, 3)))
    with pytest.raises(
        CorpusError,
        match=r"v\.npy: expected its metadata in v\.npy\.json, got no such file; make the",
    ):
        read_metadata(tmp_path / "v.npy")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', '"a"', "[" * 10_000])
def test_damaged_metadata(tmp_path: Path, content: str) -> None:
    np.save(tmp_path / "v.npy", np.ones((2, 3)))
    (tmp_path / "v.npy.json").write_text(content)
    with pytest.raises(CorpusError, match=r"v\.npy: the metadata of this file is damaged or"):
        read_metadata(tmp_path / "v.npy")


def test_vectors_of_another_model(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), output)
    metadata = replace(verify_vectors(output), model="other", fingerprint="0" * 64)
    message = rf"made with other \(fingerprint 0{{16}}\.\.\.\).*tiny \({encoder.fingerprint[:16]}"
    with pytest.raises(CorpusError, match=message):
        check_fingerprint(output, metadata, "tiny", encoder.fingerprint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path: np.save(path, np.ones((5, 3), np.float32)),
            r"got float32 \(5, 3\)",
        ),
        (lambda path: np.save(path, np.ones((5, 16))), r"got float64 \(5, 16\)"),
        (lambda path: np.save(path, np.ones((4, 16), np.float32)), r"got float32 \(4, 16\)"),
        (lambda path: path.write_bytes(b"no"), r"not a whole \.npy file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"not a whole \.npy file"),
    ],
)
def test_a_file_that_differs_from_its_metadata(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, change: Any, message: str
) -> None:
    output = tmp_path / "v.npy"
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), output)
    change(output)
    with (
        pytest.raises(CorpusError, match=rf"v\.npy: .*{message}"),
        open_vectors(output),
    ):
        pass


@pytest.mark.parametrize("line", ["{", "{}", '{"id": 1, "vector": [[1], 2]}'])
def test_a_damaged_jsonl_of_vectors(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, line: str
) -> None:
    output = tmp_path / "v.jsonl"
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), output)
    output.write_text(output.read_text() + line)
    with (
        pytest.raises(CorpusError, match=r"v\.jsonl, line 6: not a vector with its id"),
        open_vectors(output),
    ):
        pass


def test_vectors_made_now(corpus: MakeCorpus, encoder: Encoder) -> None:
    rows = corpus({"a.jsonl": LINES + "bad\n"}, id="id")
    bad: list[BadRow] = []
    with embed_now(encoder, rows, RowOptions(on_error="skip"), skipped=bad.append) as vectors:
        assert np.array_equal(vectors.block(0, 10), encoder.encode(TEXTS, prompt="passage"))
        assert vectors.find([1, 3]) == {1: ("k1", "b"), 3: ("k3", "")}
    assert [row.line for row in bad] == [6]
    with (
        pytest.raises(CorpusError, match=r"a\.jsonl, line 6: not valid JSON"),
        embed_now(encoder, corpus({"a.jsonl": LINES + "bad\n"})),
    ):
        pass


def test_a_temporary_file_that_cannot_be_written(
    corpus: MakeCorpus, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("embedge.corpus.vectors.tempfile.TemporaryFile", full)
    with (
        pytest.raises(CorpusError, match=r"\(No space left on device\); set TMPDIR to a folder"),
        embed_now(encoder, corpus({"a.jsonl": LINES})),
    ):
        pass
