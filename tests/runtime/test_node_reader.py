"""examples/node/embedge.mjs gives the ids and vectors of Encoder."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedge import Encoder
from embedge.modelfile.default import default_model
from embedge.modelfile.file import read
from embedge.text.overflow import TruncationWarning

from . import tiny

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "node"
# Reads {path, texts, options} and prints what the reader makes of them.
USE = """
import { readFile, writeFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { load } from "./embedge.mjs";
const { path, texts, options } = JSON.parse(await readFile("asked.json"));
try {
  const encoder = await load(await readFile(path), ort, { intraOpNumThreads: 1 });
  const vectors = await encoder.encode(texts, options);
  const ids = texts.map((text) => encoder.ids(text, options.prompt ?? null));
  const answer = { probes: await encoder.verify(), ids, vectors: vectors.map((v) => [...v]) };
  await writeFile("answer.json", JSON.stringify(answer));
} catch (error) {
  await writeFile("answer.json", JSON.stringify({ error: error.message }));
}
"""


@pytest.fixture
def reader(tmp_path: Path) -> Any:
    """A function of a model file, texts and options: what the reader answers."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node 18 or newer on the PATH")
    if not (EXAMPLE / "node_modules" / "onnxruntime-node").is_dir():
        pytest.skip("needs the example's packages: npm install --prefix examples/node")
    folder = tmp_path / "node"
    folder.mkdir()
    shutil.copy(EXAMPLE / "embedge.mjs", folder)
    (folder / "use.mjs").write_text(USE, encoding="utf-8")
    (folder / "node_modules").symlink_to(
        (EXAMPLE / "node_modules").resolve(), target_is_directory=True
    )

    def ask(path: Path, texts: list[str], **options: Any) -> Any:
        asked = {"path": str(path), "texts": texts, "options": options}
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        subprocess.run([node, "use.mjs"], cwd=folder, timeout=120, check=True)
        return json.loads((folder / "answer.json").read_text("utf-8"))

    return ask


def test_the_default_model_gives_its_probes_and_the_vectors_of_encoder(reader: Any) -> None:
    file = read(default_model())
    texts = ["A man eats.", "ΟΔΥΣΣΕΥΣ ΑΣ.", "a 𠮷𪜀 b", "It rains.", "[CLS] Σ [SEP]", "word " * 400]
    answer = reader(default_model(), texts)
    assert answer["probes"]["probes"] == len(file.probes) >= 9
    assert answer["probes"]["least"] > 0.9998  # 1 where the processor is of the exporter's kind
    with pytest.warns(TruncationWarning, match="1 of the texts"):
        expected = Encoder(threads=1).encode(texts, overflow="truncate")
    assert np.abs(np.array(answer["vectors"], np.float32) - expected).max() < 1e-6
    reference = Tokenizer.from_str(file.tokenizer_json)
    reference.enable_truncation(file.settings.max_tokens)
    assert answer["ids"] == [encoding.ids for encoding in reference.encode_batch(texts)]


def test_prompts_and_shorter_vectors(reader: Any, tmp_path: Path) -> None:
    vector = np.array([1, 8], np.float32) / np.float32(65**0.5)  # "b b": (1, 0) + 2 (0, 4)
    probes = [tiny.probe("a b"), tiny.probe("b", vector, vector, prompt="passage")]
    path = tiny.write(tmp_path / "tiny.onnx", tiny.model(probes=probes))
    answer = reader(path, ["b", "", "a a a a a a a a a"], prompt="passage", dim=1)
    b, cls, sep = tiny.B, tiny.CLS, tiny.SEP
    assert answer["ids"] == [[cls, b, b, sep], [cls, b, sep], [cls, b, *[tiny.A] * 5, sep]]
    assert answer["vectors"] == [[1], [1], [1]]
    assert answer["probes"]["probes"] == 2


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (replace(tiny.PROBES[0], ids=(tiny.CLS, tiny.A, tiny.SEP)), "other token ids: a b"),
        (replace(tiny.PROBES[0], output=-tiny.A_B), "cosine -1"),
    ],
)
def test_probes_that_do_not_hold(reader: Any, tmp_path: Path, probe: Any, message: str) -> None:
    path = tiny.write(tmp_path / "tiny.onnx", tiny.model(probes=[probe]))
    assert message in reader(path, ["a"])["error"]


@pytest.mark.parametrize(
    ("changed", "cut", "message"),
    [
        ({"embedge.format": "2"}, 0, "expected format 1, got 2"),
        ({}, 40, "truncated"),
    ],
)
def test_files_that_are_refused(
    reader: Any, tmp_path: Path, changed: dict[str, str], cut: int, message: str
) -> None:
    data = tiny.model(changed=changed)
    path = tiny.write(tmp_path / "tiny.onnx", data[: len(data) - cut])
    assert message in reader(path, ["a"])["error"]


def test_the_reader_has_under_100_lines() -> None:
    assert len((EXAMPLE / "embedge.mjs").read_text("utf-8").splitlines()) < 100
