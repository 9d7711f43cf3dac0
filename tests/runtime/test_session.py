"""onnxruntime's side: the hand-computed graph, threads, and what it must never do."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from embedge import Encoder, ModelError
from embedge.modelfile.file import parse
from embedge.ort.session import Session

from . import tiny
from .conftest import Run
from .tiny import CLS, PAD, SEP, A, B, C, field, node


def session(data: bytes) -> Session:
    return Session(parse(data, Path("memory")))


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        ([CLS, A, B, SEP], [1, 1, 1, 1]),
        ([CLS, A, B, SEP, PAD, PAD], [1, 1, 1, 1, 0, 0]),
        ([PAD, PAD, CLS, A, B, SEP], [0, 0, 1, 1, 1, 1]),
        ([PAD, CLS, C, A, B, SEP, PAD], [0, 1, 0, 1, 1, 1, 0]),
    ],
    ids=["no padding", "right padding", "left padding", "both, and a hole"],
)
def test_pooling_by_hand(ids: list[int], mask: list[int]) -> None:
    """[CLS] (1, 0), a (2, 0), b (0, 4), [SEP] (0, 0); padding is (9, 9) and must not count.

    The sum of the four is (3, 4), their mean (0.75, 1), its length sqrt(0.5625 + 1) = 1.25, and
    (0.75, 1) / 1.25 = (0.6, 0.8).
    """
    run = ort.InferenceSession(tiny.model(), providers=["CPUExecutionProvider"]).run
    feeds = {"input_ids": np.array([ids]), "attention_mask": np.array([mask])}
    (vectors,) = run(["sentence_embedding"], feeds)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8]], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("position", "vector"), [(0, [1, 0]), (1, [1, 0]), (2, [0, 1]), (3, [-1, 0]), (4, [0, 0])]
)
def test_a_mask_of_a_single_token_gives_that_tokens_direction(
    position: int, vector: list[float]
) -> None:
    """[CLS] (1, 0), a (2, 0), b (0, 4), c (-2, 0), each over its length; [SEP] (0, 0) has none."""
    run = ort.InferenceSession(tiny.model(), providers=["CPUExecutionProvider"]).run
    mask = np.zeros((1, 5), np.int64)
    mask[0, position] = 1
    feeds = {"input_ids": np.array([[CLS, A, B, C, SEP]]), "attention_mask": mask}
    (vectors,) = run(["sentence_embedding"], feeds)
    np.testing.assert_allclose(vectors, [vector], rtol=0, atol=1e-7)


def test_run_gives_a_row_for_every_sequence() -> None:
    """By hand: (1, 4) / sqrt(17) for b; (3, 0) for a."""
    vectors = session(tiny.model()).run(np.array([[CLS, B, SEP], [CLS, A, SEP]]))
    expected = [[1 / 17**0.5, 4 / 17**0.5], [1, 0]]
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-7)


def test_token_vectors_are_what_pooling_reads() -> None:
    """Rows of the table: [CLS], b, [SEP]."""
    vectors = session(tiny.model()).token_vectors(np.array([[CLS, B, SEP]]))
    np.testing.assert_array_equal(vectors, [[[1, 0], [0, 4], [0, 0]]])


def test_vectors_and_token_vectors_in_one_pass_are_those_of_two() -> None:
    ids = np.array([[CLS, B, SEP], [CLS, A, SEP]])
    made = session(tiny.model())
    vectors, rows = made.run_with_tokens(ids)
    np.testing.assert_array_equal(vectors, made.run(ids))
    np.testing.assert_array_equal(rows, made.token_vectors(ids))


def test_bytes_that_look_like_onnxruntimes_own_format_are_still_read_as_checked() -> None:
    """Bytes 4 to 8 are "ORTM", onnxruntime's mark of its own format, which nobody has checked."""
    data = tiny.model(head=b"\xa2\x06\x08\0ORTM\0\0\0")
    assert data[4:8] == b"ORTM"
    vectors = session(data).run(np.array([[CLS, A, B, SEP]]))
    np.testing.assert_allclose(vectors, [[0.6, 0.8]], rtol=0, atol=1e-7)


def test_a_graph_that_onnxruntime_cannot_load_gives_our_error(capfd: Any) -> None:
    graph = tiny.graph(extra=field(1, node("Gather", ["table"], "y")))
    with pytest.raises(ModelError, match=r"memory: onnxruntime cannot load it: .*Gather"):
        session(tiny.model(graph))
    assert capfd.readouterr() == ("", "")


def test_a_token_outside_the_table_gives_our_error(capfd: Any) -> None:
    with pytest.raises(ModelError, match=r"onnxruntime failed on this model and text: .*Gather"):
        session(tiny.model()).run(np.array([[CLS, 10, SEP]]))
    assert capfd.readouterr() == ("", "")


def test_a_vocabulary_larger_than_the_table_gives_our_error(tmp_path: Path) -> None:
    data = tiny.model(tiny.graph(table=tiny.TABLE[:5]))
    encoder = Encoder(tiny.write(tmp_path / "x.onnx", data))
    assert encoder.encode("a").tolist() == [1, 0]
    with pytest.raises(ModelError, match="onnxruntime failed on this model and text"):
        encoder.encode("b")


def test_a_graph_that_gives_another_shape_than_it_says_is_refused() -> None:
    """The last operator sums over the batch, so one row would be every text's vector."""
    nodes = [*tiny.NODES[:-1], node("Div", ["mean", "divisor"], "units")]
    nodes += [node("ReduceSum", ["units", "zero"], "sentence_embedding")]
    extra = field(5, tiny.tensor("zero", np.array([0], np.int64)))
    broken = session(tiny.model(tiny.graph(nodes=nodes, extra=extra)))
    with pytest.raises(
        ModelError, match=r"expected vectors of shape \(2, 2\) from the graph, got \(1, 2\)"
    ):
        broken.run(np.array([[CLS, SEP], [CLS, SEP]]))


def test_onnxruntime_is_imported_by_the_first_encoder_with_telemetry_off(python: Run) -> None:
    result = python(
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import embedge\n"
        "print('imported')\n"
        "embedge.Encoder()\n"
    )
    assert result.stderr == ""
    assert result.stdout == "imported\n1\n"
