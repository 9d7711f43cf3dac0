"""Stored vectors that are not what was written: our error, never a wrong answer."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import CorpusError, Encoder
from embedge.corpus.saved import verify_vectors

from .conftest import MakeCorpus, embed_corpus

TEXTS = ["a", "b", "a c", "", "b a"]
LINES = "".join(json.dumps({"id": f"k{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS))


@pytest.fixture
def made(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> Path:
    """A folder with v.npy and v.jsonl of the same texts."""
    for name in ("v.npy", "v.jsonl"):
        embed_corpus(encoder, corpus({"a.jsonl": LINES}, id="id"), tmp_path / name)
    return tmp_path


def change_rows(path: Path, row: int, value: float) -> None:
    vectors = np.load(path)
    vectors[row] = value
    np.save(path, vectors)


NPY: list[tuple[Any, str]] = [
    (lambda path: change_rows(path, 3, np.nan), "the vectors are not those that were written"),
    (lambda path: change_rows(path, 3, 0.5), "the vectors are not those that were written"),
    (
        lambda path: path.write_bytes(path.read_bytes() + b"\0" * 64),
        "got 384",
    ),
    (lambda path: path.write_bytes(path.read_bytes()[:-64]), r"expected 320 bytes.* got 256"),
    (lambda path: path.write_bytes(b""), r"not a whole \.npy file"),
    (lambda path: path.with_name("v.npy.ids").unlink(), "the file of the ids is missing"),
    (lambda path: path.with_name("v.npy.ids").write_text('"k0"\n'), "expected 5 rows, got 1"),
    (
        lambda path: path.with_name("v.npy.ids").write_text('"k0\n' * 5),
        "line 1: not an id",
    ),
    (lambda path: path.with_name("v.npy.ids").write_text('"k"\n' * 5), "the ids are not those"),
]


@pytest.mark.parametrize(("change", "message"), NPY)
def test_npy(made: Path, change: Any, message: str) -> None:
    change(made / "v.npy")
    with pytest.raises(CorpusError, match=rf"v\.npy.*{message}"):
        verify_vectors(made / "v.npy")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: not a vector with its id"),
        ("", "line 3: not a vector with its id"),
        ('{"id": 1, "vector": [1]}', r"line 3: expected a vector of 16 values, got shape \(1,\)"),
        ('{"id": 1, "vector": null}', "line 3: expected a vector of 16 values"),
        ('{"id": 1, "vector": ["a"]}', "line 3: not a vector with its id"),
        (json.dumps({"id": "k2", "vector": [float("nan")] * 16}), "the vectors are not those"),
        (None, "expected 5 rows, got 4"),
    ],
)
def test_jsonl(made: Path, line: str | None, message: str) -> None:
    path = made / "v.jsonl"
    lines = path.read_text().splitlines()
    lines[2:3] = [] if line is None else [line]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(CorpusError, match=rf"v\.jsonl.*{message}"):
        verify_vectors(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": "x"}, {"rows": -1}, {"rows": True}, {"dim": 0}, {"dim": 10**9}, {"dtype": []},
        {"similarity": "foo"}, {"fingerprint": 5}, {"format": 2}, {"more": 1}, {"columns": "a"},
        {"tokens": 5}, {"model": "other"},
    ],
)  # fmt: skip
def test_metadata(made: Path, changes: dict[str, Any]) -> None:
    path = made / "v.npy.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CorpusError, match=r"v\.npy: the metadata of this file is damaged or from"):
        verify_vectors(made / "v.npy")


def test_every_key_of_the_metadata_is_needed(made: Path) -> None:
    path = made / "v.npy.json"
    known = json.loads(path.read_text())
    for key in known:
        path.write_text(json.dumps({name: known[name] for name in known if name != key}))
        with pytest.raises(CorpusError, match=r"the metadata of this file is damaged or from"):
            verify_vectors(made / "v.npy")


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_flipped_bits(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, form: str) -> None:
    pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    path = tmp_path / f"v.{form}"
    rows = corpus({"a.jsonl": LINES}, id="id")
    expected = encoder.encode_document(TEXTS)
    embed_corpus(encoder, rows, path)
    whole = verify_vectors(path)
    data = path.read_bytes()
    noticed = 0
    for seed in range(100):
        chance, flipped = random.Random(seed), bytearray(data)
        for _ in range(3):
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:  # a bit that nothing depends on may be flipped; no other
            assert verify_vectors(path) == whole
        except CorpusError:
            noticed += 1
    assert noticed >= 50
    assert len(expected) == whole.rows


def test_a_copy_is_whole(made: Path) -> None:
    (made / "copy").mkdir()
    for path in made.glob("v.npy*"):
        shutil.copy(path, made / "copy")
    assert verify_vectors(made / "copy" / "v.npy").rows == 5
    with pytest.raises(CorpusError, match=r"a\.jsonl: not a file of vectors that embedge has"):
        verify_vectors(made / "a.jsonl")
