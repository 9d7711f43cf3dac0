"""KeyBERT and BERTopic: their own classes with our backend."""

from typing import Any

import numpy as np
import pytest

from embedge import Encoder

TEXTS = ["a a b", "b b a", "a b c", "c c a"]
pytestmark = pytest.mark.filterwarnings("ignore")


def test_keybert(model: str, encoder: Encoder) -> None:
    keybert = pytest.importorskip("keybert", reason="python -m pip install 'embedge[keybert]'")
    from embedge.integrations.keybert import EmbedgeBackend

    backend = EmbedgeBackend(model)
    np.testing.assert_array_equal(backend.embed(TEXTS), encoder.encode_document(TEXTS))
    found = keybert.KeyBERT(model=backend).extract_keywords("aa bb", top_n=2)
    assert {word for word, _ in found} == {"aa", "bb"}


def test_bertopic(model: str, encoder: Encoder) -> None:
    pytest.importorskip("bertopic", reason="python -m pip install 'embedge[bertopic]'")
    from bertopic import BERTopic
    from bertopic.cluster import BaseCluster
    from bertopic.dimensionality import BaseDimensionalityReduction

    from embedge.integrations.bertopic import EmbedgeBackend

    backend = EmbedgeBackend(model)
    np.testing.assert_array_equal(backend.embed_documents(TEXTS), encoder.encode_document(TEXTS))
    clusters: Any = BaseCluster()
    topics = BERTopic(
        embedding_model=backend,
        umap_model=BaseDimensionalityReduction(),
        hdbscan_model=clusters,
    )
    found, _ = topics.fit_transform(["aa bb", "bb aa", "cc ab"], y=[0, 0, 1])
    assert list(found) == [0, 0, 1]
