"""scikit-learn: EmbedgeVectorizer, a transformer from texts to vectors.

Needs `embedge[sklearn]`; importing this module imports sklearn.
"""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedge.encoder import Encoder
from embedge.integrations.framework import load, require
from embedge.similarity import Vectors

_Estimator: Any = require("sklearn.base", "sklearn").BaseEstimator
_Transformer: Any = require("sklearn.base", "sklearn").TransformerMixin
_validation = require("sklearn.utils.validation", "sklearn")


class EmbedgeVectorizer(_Transformer, _Estimator):  # type: ignore[misc]
    """Texts to vectors, as a step of a Pipeline or by itself; nothing is learned.

    Args:
        model, dim, threads: as for Encoder.
        prompt: name of one of the model's prompts; None is its default prompt, where it has one.

    Attributes:
        encoder_: the Encoder, once fitted.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        dim: int | None = None,
        threads: int | None = None,
        prompt: str | None = None,
    ) -> None:
        self.model = model
        self.dim = dim
        self.threads = threads
        self.prompt = prompt

    def fit(self, texts: Iterable[str], y: Any = None) -> Self:
        """Load the model; the texts are not read."""
        self.encoder_: Encoder = load(self.model, self.dim, self.threads)
        return self

    def transform(self, texts: Iterable[str]) -> Vectors:
        """Vectors of texts, float32 (n, dim)."""
        _validation.check_is_fitted(self)
        return self.encoder_.encode(texts, prompt=self.prompt)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the components: "embedge0", "embedge1", ..."""
        _validation.check_is_fitted(self)
        return np.array([f"embedge{i}" for i in range(self.encoder_.dim)], object)
