"""`embedge bench`: its arithmetic with clocks of our own, its structure with the tiny model."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedge.cli import bench, measuring, memory
from embedge.cli.main import main
from embedge.cli.measuring import Measurement

from . import tiny

Capture = pytest.CaptureFixture[str]
GOOD = Measurement("a.onnx", "cpu", 0.1, 1.0, 2.0, 50, 100, 5, 10, 60, 1.0, 0.998)


class Machine:
    """A clock that only encoding moves: so many seconds a call, and a text."""

    def __init__(self, call: float, text: float) -> None:
        self.now, self._call, self._text = 0.0, call, text
        self.sizes: list[int] = []

    def encode(self, texts: list[str], /) -> None:
        self.sizes.append(len(texts))
        self.now += self._call + self._text * len(texts)

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("kind", "text", "size"),
    [("short", 0.001, 256), ("long", 0.001, 64), ("short", 0.125, 16), ("short", 4.0, 1)],
)
def test_texts_per_second(kind: str, text: float, size: int) -> None:
    machine = Machine(0.0, text)
    found = measuring.rate(machine, ["a", "b", "c"], 2.0, kind, machine.clock)
    assert found == pytest.approx(1 / text)
    assert machine.sizes[:2] == [1, 1]
    assert set(machine.sizes[2:]) == {size}


def test_single_text_calls_end_with_the_time_or_after_200() -> None:
    machine = Machine(0.25, 0.0)
    assert measuring.latencies_of(machine, ["a", "b"], 1.0, machine.clock) == [0.25] * 4
    quick = Machine(2**-20, 0.0)
    assert measuring.latencies_of(quick, ["a", "b"], 1.0, quick.clock) == [2**-20] * 200


def test_the_texts_are_sentences_and_paragraphs() -> None:
    texts = measuring.bench_texts()
    assert len(set(texts["short"])) == len(texts["short"]) == 32
    assert {len(text.split()) for text in texts["long"]} == {150}
    assert len(set(texts["long"])) == len(texts["long"])


@pytest.mark.parametrize(
    ("found", "best", "line"),
    [
        ([GOOD], 0, "Take a.onnx on cpu: the only one measured that works here."),
        (
            [replace(GOOD, file="x/b.onnx", short_all=400, cosine_fp32=1.0), GOOD],
            0,
            "Take b.onnx on cpu: 2.00 times the texts per second of a.onnx on cpu, "
            "cosine to fp32 1.0000.",
        ),
        (
            [replace(GOOD, file="slow.onnx", long_all=2.5, latency_ms=0.5, cosine_fp32=None), GOOD],
            1,
            "Take a.onnx on cpu: 2.00 times the texts per second of slow.onnx on cpu, cosine to "
            "fp32 0.9980; for single texts slow.onnx on cpu is faster.",
        ),
        (
            [GOOD, replace(GOOD, file="wrong.onnx", short_all=9000, problem="wrong vectors")],
            0,
            "Take a.onnx on cpu: the only one measured that works here.",
        ),
        (
            [Measurement("a.onnx", "cpu", problem="no")],
            None,
            "None of them works here; the reasons are above.",
        ),
    ],
)
def test_the_last_line_says_which_file_to_take(
    found: Sequence[Measurement], best: int | None, line: str
) -> None:
    chosen = bench.choose(found)
    assert chosen is (None if best is None else found[best])
    assert bench.advice(found, chosen) == line


def test_a_file_is_measured_in_a_process_of_its_own(tiny_file: Path, capsys: Capture) -> None:
    assert main(["bench", str(tiny_file), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "embedge: measuring 1 of 1: tiny.onnx on cpu\n"
    report = json.loads(out)
    assert report["best"] == 0
    (found,) = report["measurements"]
    assert (found["file"], found["provider"], found["problem"]) == (str(tiny_file), "cpu", "")
    assert (found["cosine"], found["cosine_fp32"]) == (1.0, 1.0)
    figures = [found[name] for _, name, _ in bench._COLUMNS]
    assert all(isinstance(figure, float) and figure > 0 for figure in figures)
    assert found["latency_ms"] <= found["latency_p95_ms"]


def fake(path: Path, provider: str, seconds: float) -> Measurement:
    assert seconds == 1.5  # 30 s for five figures of each of the four
    if path.name == "b.onnx":
        return Measurement(str(path), provider, problem="there is no such file")
    return replace(GOOD, file=str(path), provider=provider)


def test_every_file_on_every_provider(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(bench, "measure_apart", fake)
    assert main(["bench", "x/a.onnx", "b.onnx", "--providers", "cpu, cuda"]) == 1
    out, err = capsys.readouterr()
    heading, *rows, last = (" ".join(line.split()) for line in out.splitlines())
    assert heading == "load s ms p95 ms short/s 1 all long/s 1 all MB cosine to fp32 file, provider"
    assert rows[0] == "0.10 1.00 2.00 50 100 5.0 10.0 60 1.0000 0.9980 a.onnx, cpu"
    assert rows[2] == "- - - - - - - - - - b.onnx, cpu: there is no such file"
    assert [row.split(", ")[-1].split(":")[0] for row in rows] == ["cpu", "cuda", "cpu", "cuda"]
    assert last.startswith("Take a.onnx on cpu: 1.00 times the texts per second of a.onnx on cuda")
    assert "measuring 4 of 4: b.onnx on cuda" in err


def test_wrong_vectors_are_not_taken(tmp_path: Path) -> None:
    wrong = np.array([0.8, 0.6], np.float32)
    path = tiny.write(
        tmp_path / "x.onnx", tiny.model(probes=[replace(tiny.PROBES[0], output=wrong)])
    )
    found = measuring.measure(path, "cpu", 0.01)
    assert found.cosine == pytest.approx(0.96, abs=1e-6)
    assert found.problem == "wrong vectors: the probes failed"


def test_a_file_that_cannot_be_loaded_is_a_row_with_the_reason() -> None:
    found = measuring.measure_apart(Path("missing.onnx"), "cpu", 0.01)
    assert found.load_s is None
    assert "missing.onnx: there is no such file" in found.problem


def test_a_process_that_takes_too_long_is_given_up(tiny_file: Path) -> None:
    found = measuring.measure_apart(tiny_file, "cpu", 600.0, limit=0.0)
    assert found.problem == "not finished after 0 s"


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    monkeypatch.setattr(measuring, "_work", os.abort)
    found = measuring.measure_apart(tiny_file, "cpu", 0.01)
    assert found.problem.startswith("its process ended with status ")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows is asked through ctypes")
@pytest.mark.parametrize(
    ("platform", "status", "expected"),
    [
        ("linux", "Name:\tpython\nVmHWM:\t    2048 kB\n", 2048 * 1024),
        ("linux", "", 3000 * 1024),
        ("darwin", "VmHWM:\t 2048 kB\n", 3000),
    ],
)
def test_peak_memory_in_each_systems_unit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, status: str, expected: int
) -> None:
    import resource

    class Usage:
        ru_maxrss = 3000

    (tmp_path / "status").write_text(status)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr("embedge.cli.memory.sys.platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: Usage)
    assert memory.peak_bytes() == expected
