"""mteb's contract: an STS task over a data set in memory, with mteb's own evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mteb", reason="python -m pip install 'embedge[mteb]'")

import datasets
import mteb
from mteb.abstasks.sts import AbsTaskSTS
from mteb.cache import ResultCache

from embedge import Encoder
from embedge.integrations.mteb import EmbedgeModel

pytestmark = pytest.mark.filterwarnings("ignore")
BATCHES: list[dict[str, Any]] = [{"text": ["a a", "b b"]}, {"text": ["c"]}]
ROWS = {"sentence1": ["a a", "a", "c"], "sentence2": ["a", "b b", "a a a"], "score": [5, 3, 0]}


class LocalSTS(AbsTaskSTS):
    """Three pairs; the first are alike, the last are opposites."""

    metadata = mteb.TaskMetadata(
        name="LocalSTS",
        description="Three pairs.",
        dataset={"path": "local/none", "revision": "1"},
        type="STS",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="cosine_spearman",
    )

    def load_data(self, **_: Any) -> None:
        self.dataset = {"test": datasets.Dataset.from_dict(ROWS)}
        self.data_loaded = True


def test_prompts(model: str, encoder: Encoder) -> None:
    adapter, texts = EmbedgeModel(model), ["a a", "b b", "c"]
    expected = {
        None: encoder.encode(texts),
        "query": encoder.encode_query(texts),
        "document": encoder.encode_document(texts),
    }
    for prompt_type, vectors in expected.items():
        np.testing.assert_array_equal(adapter.encode(BATCHES, prompt_type=prompt_type), vectors)
    vectors = expected[None]
    pairs = adapter.similarity_pairwise(vectors, vectors[::-1])
    np.testing.assert_allclose(pairs, np.diag(adapter.similarity(vectors, vectors[::-1])))


def test_a_local_task(model: str, tmp_path: Path) -> None:
    adapter = EmbedgeModel(model)
    results = mteb.evaluate(adapter, LocalSTS(), cache=ResultCache(tmp_path))
    assert results.model_name == "embedge/tiny"
    assert results.model_revision == adapter.encoder.fingerprint
    assert results.task_results[0].get_score() == pytest.approx(1)
