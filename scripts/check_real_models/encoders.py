"""The files of a model, and what encodes with them: embedge, plain onnxruntime, PyTorch."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic

from embedge import Encoder
from embedge.modelfile.file import read
from embedge.text.tokenizer import TextTokenizer
from embedge_export.checks.evaluate import Vectors

Encode = Callable[[Sequence[str]], Vectors]
PLAIN_TARGET = 1e-6  # every file meets it, so nothing is kept in more precision
EXPORTS: dict[str, dict[str, Any]] = {
    "fp32": {"format": "fp32"},
    "plain int8": {"target": PLAIN_TARGET},
    "int8": {},
}
USUAL, TORCH = "usual int8", "sentence-transformers"
BATCH = 32
SLICE = 256  # texts encoded between two savings


@dataclass(frozen=True)
class Task:
    """A model's folder, that of its exported files, and the evaluation data."""

    model: Path
    folder: Path
    data: Path
    documents: int

    @property
    def prefix(self) -> str:
        """The prompt for queries; models that have one need it before texts to be compared."""
        return read(self.folder / "fp32.onnx").settings.prompts.get("query", "")


class Kept:
    """Encodes each text once, and keeps the vectors in a folder for the next run."""

    def __init__(self, name: str, task: Task) -> None:
        self._load = partial(encoder_of, name, task.model, task.folder)
        self._encode: Encode | None = None
        self._folder = task.folder / f"{name}.vectors"
        self._folder.mkdir(exist_ok=True)
        self._found: dict[str, Vectors] = {}
        for path in self._folder.glob("*.npz"):
            with np.load(path) as part:
                self._found |= zip(json.loads(str(part["texts"])), part["vectors"], strict=True)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._found]
        for start in range(0, len(new), SLICE):
            self._encode = self._encode or self._load()
            some = new[start : start + SLICE]
            vectors = self._encode(some)
            part = self._folder / f"{len(self._found)}.part"
            with part.open("wb") as stream:
                np.savez(stream, texts=json.dumps(some), vectors=vectors)
            part.replace(part.with_suffix(".npz"))
            self._found |= zip(some, vectors, strict=True)
        return np.stack([self._found[text] for text in texts])


def prepare(model: Path, folder: Path) -> None:
    """Export the files that the folder does not hold yet."""
    from embedge_export import export

    for name, options in EXPORTS.items():
        if not (folder / f"{name}.onnx").is_file():
            print(f"{name} ...", file=sys.stderr)
            export(model, folder / f"{name}.onnx", notify=note, **options)
    if not (folder / f"{USUAL}.onnx").is_file():
        part = folder / f"{USUAL}.part"
        quantize_dynamic(folder / "fp32.onnx", part, per_channel=True, weight_type=QuantType.QInt8)
        part.replace(folder / f"{USUAL}.onnx")


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def encoder_of(name: str, model: Path, folder: Path) -> Encode:
    if name == TORCH:
        from embedge_export.recipe import Recipe
        from embedge_export.source.load import load

        loaded = load(Recipe(str(model))).model
        return lambda texts: np.asarray(loaded.encode(list(texts), show_progress_bar=False))
    if name == USUAL:
        return padded(folder / f"{USUAL}.onnx", folder / "fp32.onnx")
    return Encoder(folder / f"{name}.onnx").encode


def padded(path: Path, model_file: Path) -> Encode:
    """Encode as most programs do: batches of 32, sorted by length, padded to the longest."""
    file = read(model_file)
    tokenizer = TextTokenizer(file.tokenizer_json, file.settings.max_tokens)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def encode(texts: Sequence[str]) -> Vectors:
        rows = [tokenizer.wrap(ids) for ids in tokenizer.ids(texts)]
        order = np.argsort([len(row) for row in rows], kind="stable")
        result = np.empty((len(rows), file.settings.dim), np.float32)
        for start in range(0, len(rows), BATCH):
            places = order[start : start + BATCH]
            width = max(len(rows[i]) for i in places)
            ids = np.zeros((2, len(places), width), np.int64)
            for at, i in enumerate(places):
                ids[0, at, : len(rows[i])], ids[1, at, : len(rows[i])] = rows[i], 1
            feed = {"input_ids": ids[0], "attention_mask": ids[1]}
            result[places] = session.run(["sentence_embedding"], feed)[0]
        return result

    return encode
