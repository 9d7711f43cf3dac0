"""LanceDB's contract: a table that embeds on its own, and remembers its model."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lancedb", reason="python -m pip install 'embedge[lancedb]'")

import lancedb
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector

from embedge import Encoder, OptionError
from embedge.integrations.lancedb import EmbedgeFunction

TEXTS = ["a a", "b b", "c"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def table(folder: Path, model: str) -> Any:
    function = get_registry().get("embedge").create(model=model)

    class Row(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    made = lancedb.connect(folder).create_table("texts", schema=Row)
    made.add([{"text": text} for text in TEXTS])
    return made


def test_prompts(model: str, encoder: Encoder) -> None:
    function = EmbedgeFunction.create(model=model)
    documents = [vector.tolist() for vector in function.compute_source_embeddings(TEXTS)]
    assert documents == encoder.encode_document(TEXTS).tolist()
    (query,) = function.compute_query_embeddings("a b")
    assert query.tolist() == encoder.encode_query("a b").tolist()


def test_a_table(model: str, encoder: Encoder, tmp_path: Path) -> None:
    table(tmp_path, model)
    again = lancedb.connect(tmp_path).open_table("texts")
    assert [row["text"] for row in again.search("a").limit(1).to_list()] == ["a a"]
    stored = again.to_arrow().column("vector").to_pylist()
    assert stored == encoder.encode_document(TEXTS).tolist()


def test_a_table_of_another_model(model: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(Path(model).read_bytes())
    table(tmp_path / "db", str(path))
    path.write_bytes(Path(other).read_bytes())
    again = lancedb.connect(tmp_path / "db").open_table("texts")
    with pytest.raises(OptionError, match="use the model file that the index was built with"):
        again.search("a").limit(1).to_list()
