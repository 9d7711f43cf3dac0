"""onnxruntime's side: the hand-computed graph, threads, and what it must never do."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from embedge import Encoder, ModelError, OptionError
from embedge.modelfile import parse
from embedge.session import Session, _cgroup_cpus, available_cpus, check_threads

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
    np.testing.assert_allclose(run(None, feeds)[0], [vector], rtol=0, atol=1e-7)


def test_run_gives_a_row_for_every_sequence() -> None:
    """By hand: (1, 4) / sqrt(17) for b; (3, 0) for a."""
    vectors = session(tiny.model()).run(np.array([[CLS, B, SEP], [CLS, A, SEP]]))
    expected = [[1 / 17**0.5, 4 / 17**0.5], [1, 0]]
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-7)


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
    with pytest.raises(ModelError, match=r"shape \(1, 2\) for 2 texts, but says .* 2 components"):
        broken.run(np.array([[CLS, SEP], [CLS, SEP]]))


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_threads_that_make_no_sense_are_refused(threads: Any, tiny_file: Path) -> None:
    message = re.escape(f"threads should be a positive integer or None, but is {threads!r}")
    with pytest.raises(OptionError, match=message):
        Encoder(tiny_file, threads=threads)


def test_threads_are_what_was_given_or_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_threads(3) == 3
    monkeypatch.setattr("embedge.session._cgroup_cpus", lambda cpus: cpus)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert check_threads(None) == 3
    monkeypatch.setattr("embedge.session._cgroup_cpus", lambda cpus: 2)
    assert available_cpus() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "3200000 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 16),
        ("0::/\n", {}, 16),
        # A service of systemd: its own limit and that of the slice around it both hold.
        ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "400000 100000"}, 4),
        (
            "0::/a.slice/b.service\n",
            {"a.slice/b.service/cpu.max": "400000 100000", "a.slice/cpu.max": "300000 100000"},
            3,
        ),
        ("0::/not/mounted/here\n", {"cpu.max": "200000 100000"}, 2),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            16,
        ),
    ],
)
def test_control_groups_limit_the_threads(
    tmp_path: Path, membership: str, files: dict[str, str], cpus: int
) -> None:
    (tmp_path / "self").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _cgroup_cpus(16, tmp_path / "cgroup", tmp_path / "self") == cpus


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert _cgroup_cpus(16, tmp_path, tmp_path / "missing") == 16


def test_telemetry_is_off_before_onnxruntime_is_imported(python: Run) -> None:
    result = python(
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import embedge\n"
    )
    assert result.stderr == ""
    assert result.stdout == "1\n"
