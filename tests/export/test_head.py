"""The head against cases computed by hand and against sentence-transformers' own modules."""

from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sentence_transformers.sentence_transformer import modules as st

from embedge.errors import ExportError
from embedge_export.graph.head import (
    ACTIVATIONS,
    Dense,
    LayerNorm,
    Normalize,
    Pool,
    Pooling,
    Prompt,
    attach,
)

# Token 0 is padding, with values that would show if they leaked in.
TABLE = np.array([[90, -90], [1, 2], [3, -4], [5, 0]], np.float32)

THEIR_NAMES = {
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
    "weighted_mean": "weightedmean",
    "last": "lasttoken",
}


def lookup(table: np.ndarray = TABLE, *extra_inputs: str) -> onnx.ModelProto:
    """A 'transformer' whose hidden states are rows of a table."""
    names = ["input_ids", "attention_mask", *extra_inputs]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "lookup",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"]) for n in names],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["b", "s", 2])],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, ids: Any, mask: Any) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString())
    feeds = {"input_ids": np.array(ids, np.int64), "attention_mask": np.array(mask, np.int64)}
    return session.run(["sentence_embedding"], feeds)[0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # tokens (1, 2), (3, -4), (5, 0)
        ("mean", [9 / 3, -2 / 3]),
        ("cls", [1, 2]),
        ("max", [5, 2]),
        ("mean_sqrt_len", [9 / 3**0.5, -2 / 3**0.5]),
        ("weighted_mean", [(1 * 1 + 2 * 3 + 3 * 5) / 6, (1 * 2 + 2 * -4 + 3 * 0) / 6]),
        ("last", [5, 0]),
    ],
)
@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        ([[1, 2, 3]], [[1, 1, 1]]),
        ([[1, 2, 3, 0, 0]], [[1, 1, 1, 0, 0]]),
        ([[0, 0, 1, 2, 3]], [[0, 0, 1, 1, 1]]),
    ],
    ids=["whole", "right-padded", "left-padded"],
)
def test_pooling_by_hand(mode: Pooling, expected: list[float], ids: Any, mask: Any) -> None:
    model, dim = attach(lookup(), [Pool((mode,))], 2)
    assert dim == 2
    np.testing.assert_allclose(run(model, ids, mask), [expected], rtol=1e-6)


@pytest.mark.parametrize("mode", get_args(Pooling))
@pytest.mark.parametrize("mask", [[1, 0, 0], [0, 1, 0], [0, 0, 1]], ids=str)
def test_a_mask_of_one_token_gives_that_token(mode: Pooling, mask: list[int]) -> None:
    model, _ = attach(lookup(), [Pool((mode,))], 2)
    ids = [[2 if kept else 0 for kept in mask]]
    np.testing.assert_allclose(run(model, ids, [mask]), [[3, -4]], rtol=1e-6)


@pytest.mark.parametrize("length", [0, 1e-20, 1e-13, 1e-9, 1e20])
def test_vectors_are_normalized_as_by_torch_however_short(length: float) -> None:
    table = (length * np.array([[0.6, -0.8]])).astype(np.float32)
    model, _ = attach(lookup(table), [Pool(("mean",)), Normalize()], 2)
    expected = torch.nn.functional.normalize(torch.tensor(table)).numpy()
    np.testing.assert_allclose(run(model, [[0]], [[1]]), expected, rtol=1e-5)


@pytest.mark.parametrize("mode", get_args(Pooling))
@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_agrees_with_sentence_transformers(mode: Pooling, side: str) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 2)).astype(np.float32)
    ids = rng.integers(0, 50, (8, 9))
    kept = np.arange(9)[None, :] < np.arange(1, 9)[:, None]
    mask = (kept if side == "right" else kept[:, ::-1]).astype(np.int64)
    model, _ = attach(lookup(table), [Pool((mode,))], 2)
    features = {
        "token_embeddings": torch.tensor(table[ids]),
        "attention_mask": torch.tensor(mask),
    }
    theirs = st.Pooling(2, THEIR_NAMES[mode])(features)["sentence_embedding"].numpy()
    if (mode, side) == ("weighted_mean", "left"):
        # Theirs counts positions from the padding on; ours from the first token, so that a
        # vector does not depend on its padding. Both agree on the right.
        flipped = {
            "token_embeddings": torch.tensor(np.stack([
                np.roll(table[row], -int((1 - keep).sum()), axis=0)
                for row, keep in zip(ids, mask, strict=True)
            ])),
            "attention_mask": torch.tensor(mask[:, ::-1].copy()),
        }  # fmt: skip
        theirs = st.Pooling(2, THEIR_NAMES[mode])(flipped)["sentence_embedding"].numpy()
    np.testing.assert_allclose(run(model, ids, mask), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", get_args(Pooling))
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_prompt_is_left_out_as_in_sentence_transformers(mode: Pooling, side: str) -> None:
    """Known by its first tokens, 7 8: three tokens of four rows, four of another's 7 8 9."""
    if (mode, side) == ("weighted_mean", "left"):
        pytest.skip("theirs counts positions from the padding on, see above")
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 2)).astype(np.float32)
    ids = rng.integers(10, 50, (6, 9))
    ids[:4, :2] = 7, 8
    ids[3, 2] = 9
    ids[5, 1:3] = 7, 8  # not at the start
    lengths = [9, 7, 5, 6, 9, 4]
    skipped = [3, 3, 3, 4, 0, 0]
    mask = (np.arange(9) < np.array(lengths)[:, None]).astype(np.int64)
    if side == "left":
        mask = mask[:, ::-1].copy()
        ids = np.array([np.roll(row, 9 - n) for row, n in zip(ids, lengths, strict=True)])
    prompts = (Prompt((7, 8), 3), Prompt((7, 8, 9), 4))
    model, _ = attach(lookup(table), [Pool((mode,), prompts)], 2)
    theirs = st.Pooling(2, THEIR_NAMES[mode], include_prompt=False)
    for row in range(6):
        features = {
            "token_embeddings": torch.tensor(table[ids[row : row + 1]]),
            "attention_mask": torch.tensor(mask[row : row + 1]),
            "prompt_length": skipped[row],
        }
        expected = theirs(features)["sentence_embedding"].numpy()
        got = run(model, ids, mask)[row : row + 1]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_pooling_without_the_prompt_by_hand() -> None:
    """The prompt is the token (1, 2): (3, -4) and (5, 0) are left, with the mean (4, -2)."""
    model, _ = attach(lookup(), [Pool(("mean",), (Prompt((1,), 1),))], 2)
    np.testing.assert_allclose(run(model, [[1, 2, 3]], [[1, 1, 1]]), [[4, -2]])
    np.testing.assert_allclose(run(model, [[2, 1, 3]], [[1, 1, 1]]), [[3, -2 / 3]], rtol=1e-6)


def test_several_modes_are_concatenated() -> None:
    model, dim = attach(lookup(), [Pool(("cls", "last"))], 2)
    assert dim == 4
    np.testing.assert_allclose(run(model, [[1, 2]], [[1, 1]]), [[1, 2, 3, -4]])


def test_mean_then_normalize_by_hand() -> None:
    """Tokens (1, 2) and (5, 0): mean (3, 1), length sqrt(10)."""
    model, _ = attach(lookup(), [Pool(("mean",)), Normalize()], 2)
    expected = [[3 / 10**0.5, 1 / 10**0.5]]
    np.testing.assert_allclose(run(model, [[1, 3, 0]], [[1, 1, 0]]), expected, rtol=1e-6)


def test_a_vector_of_zeros_stays_finite() -> None:
    model, _ = attach(lookup(np.zeros((4, 2), np.float32)), [Pool(("mean",)), Normalize()], 2)
    np.testing.assert_array_equal(run(model, [[1, 2]], [[1, 1]]), [[0, 0]])


@pytest.mark.parametrize(
    ("activation", "theirs"),
    [
        ("identity", torch.nn.Identity()),
        ("tanh", torch.nn.Tanh()),
        ("relu", torch.nn.ReLU()),
        ("gelu", torch.nn.GELU()),
        ("sigmoid", torch.nn.Sigmoid()),
        ("silu", torch.nn.SiLU()),
    ],
)
def test_dense_agrees_with_sentence_transformers(activation: Any, theirs: torch.nn.Module) -> None:
    assert activation in ACTIVATIONS
    torch.manual_seed(0)
    module = st.Dense(2, 3, activation_function=theirs)
    weight = np.ascontiguousarray(module.linear.weight.detach().numpy().T)
    head = [Pool(("cls",)), Dense(weight, module.linear.bias.detach().numpy(), activation)]
    model, dim = attach(lookup(), head, 2)
    assert dim == 3
    expected = module({"sentence_embedding": torch.tensor(TABLE[1:2])})["sentence_embedding"]
    np.testing.assert_allclose(
        run(model, [[1]], [[1]]), expected.detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_dense_without_a_bias_by_hand() -> None:
    """(1, 2) times [[1, 0, 2], [0, 1, 1]] is (1, 2, 4)."""
    weight = np.array([[1, 0, 2], [0, 1, 1]], np.float32)
    model, _ = attach(lookup(), [Pool(("cls",)), Dense(weight, None, "identity")], 2)
    np.testing.assert_allclose(run(model, [[1]], [[1]]), [[1, 2, 4]])


def test_layer_norm_by_hand() -> None:
    """(3, -4): mean -0.5, deviations 3.5 and -3.5, so (1, -1), then times 2 plus 1."""
    norm = LayerNorm(np.full(2, 2, np.float32), np.ones(2, np.float32), 1e-12)
    model, _ = attach(lookup(), [Pool(("cls",)), norm], 2)
    np.testing.assert_allclose(run(model, [[2]], [[1]]), [[3, -1]], rtol=1e-5)


def test_an_input_that_nobody_feeds_is_refused() -> None:
    with pytest.raises(ExportError, match=r"graph: the traced transformer takes .* 'position_ids'"):
        attach(lookup(TABLE, "position_ids"), [Pool(("cls",))], 2)


def test_segments_become_zeros() -> None:
    model = lookup(TABLE, "token_type_ids")
    model.graph.node[0].output[0] = "states"
    model.graph.node.append(helper.make_node("Gather", ["table", "token_type_ids"], ["types"]))
    model.graph.node.append(helper.make_node("Add", ["states", "types"], ["last_hidden_state"]))
    model, _ = attach(model, [Pool(("cls",))], 2)
    assert [i.name for i in model.graph.input] == ["input_ids", "attention_mask"]
    np.testing.assert_allclose(run(model, [[1]], [[1]]), [[1 + 90, 2 - 90]])


def test_attach_does_not_change_its_argument() -> None:
    model = lookup()
    before = model.SerializeToString()
    attach(model, [Pool(("mean",)), Normalize()], 2)
    assert model.SerializeToString() == before
