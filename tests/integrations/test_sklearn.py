"""scikit-learn's contract: clone, parameters, pickling, a grid search over processes."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="python -m pip install 'embedge[sklearn]'")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from embedge import Encoder
from embedge.integrations.sklearn import EmbedgeVectorizer

# An old scikit-learn passes a new SciPy options that it has given up.
pytestmark = pytest.mark.filterwarnings("ignore:scipy:DeprecationWarning")

TEXTS = ["a a", "a b a", "a", "a a a", "c", "c c", "c b c", "c c c"]
LABELS = [0, 0, 0, 0, 1, 1, 1, 1]


def test_parameters_and_clone(model: str) -> None:
    vectorizer = EmbedgeVectorizer(model, dim=1, prompt="query")
    expected = {"model": model, "dim": 1, "threads": None, "prompt": "query"}
    assert vectorizer.get_params() == expected
    assert clone(vectorizer.fit(TEXTS)).get_params() == expected
    assert vectorizer.set_params(dim=2).fit(TEXTS).transform(TEXTS).shape == (8, 2)


def test_vectors_are_the_encoders(model: str, encoder: Encoder) -> None:
    vectors = EmbedgeVectorizer(model, prompt="passage").fit_transform(TEXTS)
    np.testing.assert_array_equal(vectors, encoder.encode_document(TEXTS))
    fitted = EmbedgeVectorizer(model).fit(TEXTS)
    assert fitted.get_feature_names_out().tolist() == ["embedge0", "embedge1"]


def test_pickling(model: str) -> None:
    fitted = EmbedgeVectorizer(model).fit(TEXTS)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.transform(TEXTS), fitted.transform(TEXTS))


def test_unfitted(model: str) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        EmbedgeVectorizer(model).transform(TEXTS)


def test_grid_search_over_processes(model: str) -> None:
    pipeline = make_pipeline(EmbedgeVectorizer(model, threads=1), LogisticRegression())
    grid = {"embedgevectorizer__prompt": [None, "query"], "logisticregression__C": [1, 10]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(TEXTS, LABELS)
    assert search.best_score_ == 1
    assert search.predict(["a a b", "c b"]).tolist() == [0, 1]
