"""docs/file-format.md is enough: a reader written from that page alone, step by step."""

import base64
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from embedge.modelfile.default import default_model
from embedge.modelfile.settings import ModelSettings, TransformerSettings

from . import tiny

PAGE = (Path(__file__).parent.parent.parent / "docs" / "file-format.md").read_text("utf-8")


def fields(data: bytes) -> list[tuple[int, Any]]:
    """Tags, varints and lengths, as under "Field numbers"."""
    found: list[tuple[int, Any]] = []
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(data):
        tag = varint()
        value: Any = varint()
        if tag & 7 == 2:
            value, position = data[position : position + value], position + value
        found.append((tag >> 3, value))
    return found


def check(path: Path) -> int:
    """Read a file as the page says; returns how many probes hold."""
    model = fields(path.read_bytes())
    metadata = {}
    for number, value in model:
        if number == 14:
            entry = dict(fields(value))
            metadata[entry[1].decode()] = entry[2].decode()
    settings = json.loads(metadata["embedge.model"])
    packed = base64.b64decode(metadata["embedge.tokenizer"])
    tokenizer_json = zlib.decompress(packed)
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    prefix, suffix = settings["prefix_ids"], settings["suffix_ids"]
    probes = json.loads(metadata["embedge.probes"])
    for probe in probes:
        name = probe["prompt"] or settings["default_prompt"]
        text = (settings["prompts"][name] if name else "") + probe["text"]
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        ids = prefix + ids[: settings["max_tokens"] - len(prefix) - len(suffix)] + suffix
        assert ids == probe["ids"]
        feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        (vectors,) = session.run(["sentence_embedding"], feeds)
        output = np.frombuffer(base64.b64decode(probe["output"]), "<f4")
        norms = np.linalg.norm(vectors[0]) * np.linalg.norm(output)
        assert vectors[0] @ output / norms >= 0.999

    def compact(value: Any) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    opsets = [dict(fields(value)) for number, value in model if number == 8]
    parts = [value for number, value in model if number == 7]
    parts.append(compact({opset.get(1, b"").decode(): opset[2] for opset in opsets}))
    deciding = re.search(r"4\. the settings (.*) as a JSON object", PAGE)
    assert deciding is not None
    keys = re.findall("`([a-z_]+)`", deciding[1])
    parts += [tokenizer_json, compact({key: settings[key] for key in keys})]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    assert digest.hexdigest() == metadata["embedge.fingerprint"]
    return len(probes)


def test_a_reader_written_from_the_page_reads_the_default_model() -> None:
    assert check(default_model()) >= 9


def test_a_reader_written_from_the_page_reads_prompts(tmp_path: Path) -> None:
    vector = np.array([1, 8], np.float32) / np.float32(65**0.5)  # "b b": (1, 0) + 2 (0, 4)
    probes = [tiny.probe("a b"), tiny.probe("b", vector, vector, prompt="passage")]
    assert check(tiny.write(tmp_path / "x.onnx", tiny.model(probes=probes))) == 2


@pytest.mark.parametrize("kind", [ModelSettings, TransformerSettings])
def test_the_page_names_every_setting(kind: Any) -> None:
    for name in kind.__dataclass_fields__:
        assert f"`{name}`" in PAGE
