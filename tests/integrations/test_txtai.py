"""txtai's contract: prompts, an index that is saved and loaded, another model."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("txtai", reason="python -m pip install 'embedge[txtai]'")

from txtai import Embeddings

from embedge import Encoder, OptionError
from embedge.integrations.txtai import EmbedgeVectors

TEXTS = ["a a", "b b", "c"]
METHOD = "embedge.integrations.txtai.EmbedgeVectors"
pytestmark = pytest.mark.filterwarnings("ignore")


def test_prompts(model: str, encoder: Encoder) -> None:
    vectors = EmbedgeVectors({"path": model}, None, None)
    np.testing.assert_array_equal(vectors.encode(TEXTS, "data"), encoder.encode_document(TEXTS))
    np.testing.assert_array_equal(vectors.encode(TEXTS, "query"), encoder.encode_query(TEXTS))


def test_an_index(model: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(Path(model).read_bytes())
    embeddings = Embeddings(method=METHOD, path=str(path), backend="numpy")
    embeddings.index(TEXTS)
    assert embeddings.search("a", 1)[0][0] == 0
    embeddings.save(str(tmp_path / "index"))
    again = Embeddings()
    again.load(str(tmp_path / "index"))
    assert again.search("a", 1)[0][0] == 0
    path.write_bytes(Path(other).read_bytes())
    with pytest.raises(ImportError, match="Unable to resolve vectors backend") as caught:
        Embeddings().load(str(tmp_path / "index"))
    assert isinstance(caught.value.__cause__, OptionError)
    assert "use the model file that the index was built with" in str(caught.value.__cause__)
