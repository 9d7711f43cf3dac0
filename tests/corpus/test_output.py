import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import Encoder
from embedge.corpus.layout import LAYOUTS

from .conftest import MakeCorpus, embed_corpus

LINES = '{"text": "a", "id": 5}\n{"text": "b", "id": 6}\n{"text": "a c", "id": 7}\n'
TEXTS = ["a", "b", "a c"]


def test_npy_is_what_numpy_saves(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> None:
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy")
    np.save(tmp_path / "numpy.npy", encoder.encode_document(TEXTS))
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_jsonl(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, dtype: str) -> None:
    embed_corpus(encoder, corpus({"a.jsonl": LINES}, id="id"), tmp_path / "v.jsonl", dtype=dtype)
    expected = LAYOUTS[dtype].store(encoder.encode_document(TEXTS)).tolist()
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert rows == [
        {"id": key, "vector": vector} for key, vector in zip((5, 6, 7), expected, strict=True)
    ]
    assert json.loads((tmp_path / "v.jsonl.json").read_text())["dtype"] == dtype


def read(path: Path) -> Any:
    reason = "needs pip install 'embedge[corpus]'"
    if path.suffix == ".parquet":
        return pytest.importorskip("pyarrow.parquet", reason=reason).read_table(path)
    return pytest.importorskip("pyarrow.ipc", reason=reason).open_file(path).read_all()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("dtype", "value", "width"),
    [
        ("float32", "float", 16),
        ("float16", "halffloat", 16),
        ("int8", "int8", 16),
        ("binary", "uint8", 2),
    ],
)
def test_parquet_and_arrow(
    corpus: MakeCorpus,
    encoder: Encoder,
    tmp_path: Path,
    kind: str,
    dtype: str,
    value: str,
    width: int,
) -> None:
    pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    output = tmp_path / f"v.{kind}"
    embed_corpus(encoder, corpus({"a.jsonl": LINES}, id="id"), output, dtype=dtype)
    table = read(output)
    assert str(table.schema.field("id").type) == "int64"
    vector_type = table.schema.field("vector").type
    assert (str(vector_type.value_type), vector_type.list_size) == (value, width)
    assert table["id"].to_pylist() == [5, 6, 7]
    stored = np.array(table["vector"].to_pylist(), LAYOUTS[dtype].dtype)
    assert np.array_equal(stored, LAYOUTS[dtype].store(encoder.encode_document(TEXTS)))
    known = json.loads(table.schema.metadata[b"embedge"])
    assert (known["fingerprint"], known["rows"]) == (encoder.fingerprint, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", output.name]


@pytest.mark.parametrize("first", ['"x"', str(2**63)])
def test_ids_that_are_not_all_integers_of_64_bits_are_strings(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, first: str
) -> None:
    pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    lines = LINES.replace("5", first)
    embed_corpus(encoder, corpus({"a.jsonl": lines}, id="id"), tmp_path / "v.parquet")
    table = read(tmp_path / "v.parquet")
    assert table["id"].to_pylist() == [first.strip('"'), "6", "7"]


def test_running_numbers_and_several_row_groups(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.parquet", chunk=2)
    table = read(tmp_path / "v.parquet")
    assert table["id"].to_pylist() == [0, 1, 2]
    assert np.array_equal(
        np.array(table["vector"].to_pylist(), "f4"), encoder.encode_document(TEXTS)
    )
