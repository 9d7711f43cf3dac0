"""The contract of the file: what is read, and what is refused with which words."""

import base64
import hashlib
import json
import os
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedge import Encoder, ModelError
from embedge.modelfile.default import default_model
from embedge.modelfile.file import fingerprint, parse, read
from embedge.modelfile.settings import ModelSettings

from . import tiny
from .tiny import field

NOWHERE = Path("memory")


def test_a_model_file_is_read(tiny_file: Path) -> None:
    file = read(tiny_file)
    assert file.path == tiny_file
    assert file.data == tiny_file.read_bytes()
    assert file.size == len(file.data)
    assert file.settings == tiny.SETTINGS
    assert file.tokenizer_json == tiny.TOKENIZER
    assert file.report == {"cosine": 1.0}
    (probe,) = file.probes
    assert probe.text == "a b"
    np.testing.assert_array_equal(probe.reference, tiny.A_B)
    np.testing.assert_array_equal(probe.output, tiny.A_B)


def test_the_description_is_all_but_weights_tokenizer_and_vectors(tiny_file: Path) -> None:
    facts = json.loads(json.dumps(read(tiny_file).describe()))
    assert facts["name"] == "tiny"
    assert facts["dim"] == 2
    assert facts["format"] == 1
    assert facts["prompts"] == {"query": "a ", "passage": "b "}
    assert facts["probes"] == ["a b"]
    assert facts["operators"]["Gather"] == 1
    assert facts["bytes"] == tiny_file.stat().st_size
    assert facts["tokenizer_bytes"] == len(tiny.TOKENIZER.encode())
    assert "tokenizer" not in facts


def test_the_fingerprint_is_the_hash_that_the_contract_says() -> None:
    """SHA-256 over graph, opsets, tokenizer and deciding settings, each after its length."""
    deciding = {
        "default_prompt": None,
        "dim": 2,
        "max_tokens": 8,
        "normalized": True,
        "pooling": "mean",
        "prefix_ids": [2],
        "prompts": {"passage": "b ", "query": "a "},
        "suffix_ids": [3],
    }
    digest = hashlib.sha256()
    for part in (
        tiny.GRAPH,
        b'{"":17}',
        tiny.TOKENIZER.encode(),
        json.dumps(deciding, separators=(",", ":")).encode(),
    ):
        digest.update(len(part).to_bytes(8, "little") + part)
    assert parse(tiny.model(), NOWHERE).fingerprint == digest.hexdigest()


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        (replace(tiny.SETTINGS, name="other", license="MIT", source={}), True),
        (replace(tiny.SETTINGS, quantization="int8"), True),
        (replace(tiny.SETTINGS, kept=("x",), device="any", min_onnxruntime="1.22"), True),
        (replace(tiny.SETTINGS, prefix_ids=()), False),
        (replace(tiny.SETTINGS, suffix_ids=()), False),
        (replace(tiny.SETTINGS, max_tokens=9), False),
        (replace(tiny.SETTINGS, pooling="cls"), False),
        (replace(tiny.SETTINGS, normalized=False), False),
        (replace(tiny.SETTINGS, prompts={}), False),
        (replace(tiny.SETTINGS, default_prompt="query"), False),
    ],
)
def test_the_fingerprint_changes_with_what_decides_a_vector(
    settings: ModelSettings, same: bool
) -> None:
    before = fingerprint(tiny.GRAPH, tiny.OPSETS, tiny.TOKENIZER, tiny.SETTINGS)
    after = fingerprint(tiny.GRAPH, tiny.OPSETS, tiny.TOKENIZER, settings)
    assert (before == after) is same


def test_the_fingerprint_changes_with_graph_opset_and_tokenizer() -> None:
    found = {
        fingerprint(tiny.GRAPH, tiny.OPSETS, tiny.TOKENIZER, tiny.SETTINGS),
        fingerprint(tiny.GRAPH + b"x", tiny.OPSETS, tiny.TOKENIZER, tiny.SETTINGS),
        fingerprint(tiny.GRAPH, {"": 18}, tiny.TOKENIZER, tiny.SETTINGS),
        fingerprint(tiny.GRAPH, tiny.OPSETS, tiny.TOKENIZER + " ", tiny.SETTINGS),
    }
    assert len(found) == 4


def test_a_missing_file_is_not_downloaded(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    message = f"^{re.escape(str(path))}: there is no such file. embedge downloads nothing; give"
    with pytest.raises(ModelError, match=message):
        read(path)


def test_the_name_of_a_hub_model_is_a_missing_file() -> None:
    with pytest.raises(ModelError, match=r"no such file.*'embedge export'"):
        Encoder("sentence-transformers/all-MiniLM-L6-v2")


@pytest.mark.parametrize("model", ["", "."])
def test_a_folder_is_refused(model: str) -> None:
    with pytest.raises(ModelError, match=r"this is a folder; give the path of the \.onnx file"):
        Encoder(model)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty; fetch or export it again"),
        (b"%PDF-1.7 this is a letter to a friend", "truncated, damaged or not an ONNX model"),
        (b"PK\x03\x04" + bytes(100), "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "not an ONNX model"),
        (bytes(1000), "not an ONNX model (a field has the number 0); give the path of a"),
    ],
)
def test_what_is_not_onnx_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tiny.write(tmp_path / "x.onnx", data)
    with pytest.raises(ModelError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        read(path)


def test_a_path_too_long_for_the_system_is_refused() -> None:
    with pytest.raises(ModelError, match=r"x: (cannot be read: \w|there is no such file)"):
        read("x" * 5000)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "x.onnx")
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        read(path)


ADVICE = "fetch or export it again|made with 'embedge export'|with 'embedge export'"


def test_a_file_cut_anywhere_is_refused_with_advice() -> None:
    data = tiny.model()
    assert len(data) > 1500
    for end in range(len(data)):
        with pytest.raises(ModelError, match=ADVICE):
            parse(data[:end], NOWHERE)


def test_the_default_file_cut_anywhere_is_refused_with_advice() -> None:
    data = default_model().read_bytes()
    rng = np.random.default_rng(0)
    ends = [*rng.integers(0, len(data), 40), *range(len(data) - 40, len(data)), *range(1, 40)]
    for end in ends:
        with pytest.raises(ModelError, match=ADVICE):
            parse(data[:end], NOWHERE)


def test_a_changed_byte_is_never_taken_for_the_same_model() -> None:
    """Whatever one bit of the file is flipped: refused, or a file with the same fingerprint."""
    data, original = tiny.model(), parse(tiny.model(), NOWHERE).fingerprint
    refused = 0
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        try:
            assert parse(bytes(changed), NOWHERE).fingerprint == original
        except ModelError:
            refused += 1
    assert refused > 0.8 * len(data)


def test_a_flipped_byte_of_a_weight_is_refused() -> None:
    data = bytearray(tiny.model())
    data[data.index(tiny.TABLE.tobytes()) + 5] ^= 1
    with pytest.raises(ModelError, match=r"damaged or changed after its export.*fetch or export"):
        parse(bytes(data), NOWHERE)


def packed(tokenizer: bytes) -> str:
    return base64.b64encode(zlib.compress(tokenizer)).decode()


VECTOR = base64.b64encode(tiny.A_B.tobytes()).decode()


def bad_probe(without: str = "", **changes: object) -> str:
    """The JSON of one probe with other values, or without one."""
    good = {"text": "a", "prompt": None, "ids": [1], "reference": VECTOR, "output": VECTOR}
    return json.dumps([{key: value for key, value in (good | changes).items() if key != without}])


BAD_METADATA: list[tuple[dict[str, str | None], str]] = [
    (dict.fromkeys(["embedge.format"]), "was not made by embedge: .*export the model it came from"),
    ({"embedge.format": "2"}, "has format 2, this embedge reads up to 1: upgrade with 'python -m"),
    ({"embedge.format": "999999999"}, "upgrade with"),
    (
        {"embedge.format": "one"},
        "expected embedge.format to be a number, got 'one'; export it again",
    ),
    ({"embedge.format": "9" * 5000}, "expected embedge.format to be a number"),
    ({"embedge.format": "0"}, "expected embedge.format to be a number, got '0'"),
    ({"embedge.format": "01"}, "expected embedge.format to be a number, got '01'"),
    ({"embedge.format": "١"}, "expected embedge.format to be a number, got '١'"),
    ({"embedge.format": "1\n"}, "expected embedge.format to be a number"),
    ({"embedge.model": None}, "embedge.model is missing; fetch or export it again"),
    ({"embedge.tokenizer": None}, "embedge.tokenizer is missing; fetch or export it again"),
    ({"embedge.probes": None}, "embedge.probes is missing"),
    ({"embedge.report": None}, "embedge.report is missing"),
    ({"embedge.fingerprint": None}, "embedge.fingerprint is missing"),
    ({"embedge.model": "{"}, "embedge.model is not valid JSON .*; export it again"),
    (
        {"embedge.model": "[]"},
        "expected embedge.model to be a JSON dict, got list; export it again",
    ),
    ({"embedge.model": "[" * 100_000}, "embedge.model is not valid JSON"),
    ({"embedge.model": tiny.settings_json(max_tokens=9)}, "damaged or changed after its export"),
    ({"embedge.fingerprint": "0" * 64}, "it says '0000000000000000'"),
    ({"embedge.tokenizer": "not base64!"}, r"tokenizer in the file is damaged \(.*fetch or export"),
    ({"embedge.tokenizer": "ÿ"}, "tokenizer in the file is damaged"),
    ({"embedge.tokenizer": "AAAA"}, "tokenizer in the file is damaged"),
    ({"embedge.tokenizer": packed(b"\xff")}, "tokenizer in the file is damaged"),
    ({"embedge.tokenizer": packed(b"{}")}, "damaged or changed after its export"),
    ({"embedge.tokenizer": packed(tiny.TOKENIZER.replace("[SEP]", "[CLS]").encode())}, "changed"),
    (
        {"embedge.tokenizer": base64.b64encode(zlib.compress(b"x" * 9999)[:-8]).decode()},
        "at most 268,435,456 bytes, got a larger or a truncated one",
    ),
    ({"embedge.report": "3"}, "expected embedge.report to be a JSON dict, got int"),
    ({"embedge.probes": "{}"}, "expected embedge.probes to be a JSON list, got dict"),
    ({"embedge.probes": "[1]"}, "probes in the file are damaged .*export it again"),
    ({"embedge.probes": bad_probe(output="AAAA")}, "probes in the file are damaged"),
    ({"embedge.probes": bad_probe(output="AAAAAA==")}, "a vector has 1 components instead of 2"),
    ({"embedge.probes": bad_probe(reference=5)}, "probes in the file are damaged"),
    ({"embedge.probes": bad_probe(text=None)}, "a text or the name of a prompt is not a string"),
    ({"embedge.probes": bad_probe(text="\ud800")}, "embedge.probes is not valid JSON"),
    ({"embedge.probes": bad_probe(prompt=1)}, "a text or the name of a prompt is not a string"),
    ({"embedge.probes": bad_probe(prompt="no")}, "'no' is not one of the file's prompts"),
    ({"embedge.probes": bad_probe(ids=[True])}, "token ids are not a list of integers from 0 up"),
    ({"embedge.probes": bad_probe(ids=[-1])}, "token ids are not a list of integers"),
    ({"embedge.probes": bad_probe(ids=3)}, "token ids are not a list of integers"),
    *(
        ({"embedge.probes": bad_probe(without=key)}, f"probes in the file are damaged .'{key}'")
        for key in ("text", "prompt", "ids", "reference", "output")
    ),
]


@pytest.mark.parametrize(
    ("changed", "message"), BAD_METADATA, ids=[message[:40] for _, message in BAD_METADATA]
)
def test_bad_metadata_is_refused(changed: dict[str, str | None], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse(tiny.model(changed=changed), NOWHERE)


@pytest.mark.parametrize("first", ["", "ai.onnx"])
@pytest.mark.parametrize("second", ["", "ai.onnx"])
def test_two_operator_sets_of_one_domain_are_refused(first: str, second: str) -> None:
    """onnxruntime takes one of them, in an order of its own: two files, one fingerprint."""
    again = field(8, field(1, second) + field(2, 11))
    with pytest.raises(ModelError, match=r"imports the operator set ai\.onnx twice; export"):
        parse(tiny.model(opsets={first: 17}, tail=again), NOWHERE)


def test_onnxs_own_domain_has_one_fingerprint_under_both_names() -> None:
    file = parse(tiny.model(), NOWHERE)
    long = tiny.model(opsets={"ai.onnx": 17}, changed={"embedge.fingerprint": file.fingerprint})
    assert parse(long, NOWHERE).fingerprint == file.fingerprint
    assert parse(long, NOWHERE).walked.opsets == {"": 17}


def test_a_metadata_key_given_twice_is_refused() -> None:
    again = field(14, field(1, "embedge.report") + field(2, "{}"))
    with pytest.raises(ModelError, match=r"metadata key 'embedge.report' twice; export"):
        parse(tiny.model(tail=again), NOWHERE)


def test_a_decompression_bomb_is_refused() -> None:
    """300 MB of spaces in 300 KB: inflating stops at the limit of 256 MB."""
    bomb = zlib.compressobj()
    parts = [bomb.compress(b" " * 2**20) for _ in range(300)]
    text = base64.b64encode(b"".join([*parts, bomb.flush()])).decode()
    with pytest.raises(
        ModelError, match="at most 268,435,456 bytes, got a larger or a truncated one; fetch"
    ):
        parse(tiny.model(changed={"embedge.tokenizer": text}), NOWHERE)


@pytest.mark.parametrize("garbage", ["", "{}", "[]", "\0", '{"model": {"type": "Evil"}}'])
def test_a_garbage_tokenizer_with_a_fitting_fingerprint_is_refused(
    tmp_path: Path, garbage: str
) -> None:
    path = tiny.write(tmp_path / "x.onnx", tiny.model(tokenizer=garbage))
    with pytest.raises(ModelError, match=r"tokenizer in the file cannot be used \(.*export it aga"):
        Encoder(path)


IDS, MASK = tiny.INPUTS
INT32, FLOAT16 = 6, 10


def output(name: str, kind: int, shape: tuple[int | str, ...]) -> tuple[bytes, ...]:
    """The token vectors and another output."""
    return (tiny.OUTPUTS[0], tiny.value_info(name, kind, shape))


def hidden(*shape: int | str, kind: int = 1, name: str = "last_hidden_state") -> bytes:
    """A graph whose token vectors are of another kind or shape."""
    return tiny.graph(outputs=[tiny.value_info(name, kind, shape), tiny.OUTPUTS[1]])


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            tiny.graph(inputs=[IDS]),
            "expected the inputs input_ids and attention_mask.*, got input_ids",
        ),
        (tiny.graph(inputs=[]), "got nothing"),
        (
            tiny.graph(inputs=[IDS, MASK, tiny.value_info("token_type_ids", 7, ("b", "s"))]),
            "token_type_ids",
        ),
        (
            tiny.graph(inputs=[IDS, tiny.value_info("attention_mask", INT32, ("b", "s"))]),
            r"int64 \(batch, sequence\), got",
        ),
        (
            tiny.graph(inputs=[IDS, tiny.value_info("attention_mask", tiny.INT64, ("b",))]),
            r"got input_ids .*attention_mask \(b,\)",
        ),
        (tiny.graph(outputs=()), "expected the outputs last_hidden_state.*got nothing"),
        (
            tiny.graph(outputs=output("token_embeddings", 1, ("b", 2))),
            "as the settings say, got last_hidden_state .*, token_embeddings",
        ),
        (
            tiny.graph(outputs=output("sentence_embedding", FLOAT16, ("b", 2))),
            "expected the outputs",
        ),
        (
            tiny.graph(outputs=output("sentence_embedding", 1, ("b", 3))),
            r"float32 \(batch, 2\), as the settings say, got .*\(b, 3\)",
        ),
        (tiny.graph(outputs=output("sentence_embedding", 1, ("b", "d"))), r"\(b, d\)"),
        (tiny.graph(outputs=output("sentence_embedding", 1, ("b", "s", 2))), r"\(b, s, 2\)"),
        (tiny.graph(outputs=[*tiny.OUTPUTS, *output("more", 1, ("b", 2))[1:]]), "more"),
        (tiny.graph(outputs=tiny.OUTPUTS[1:]), "say, got sentence_embedding"),
        (tiny.graph(outputs=[*tiny.OUTPUTS, tiny.OUTPUTS[1]]), "expected the outputs"),
        (hidden("b", "s", 2, name="token_embeddings"), "say, got token_embeddings"),
        (hidden("b", "s", 2, kind=FLOAT16), r"float32 \(batch, sequence, 2\)"),
        (hidden("b", "s", 3), r"say, got last_hidden_state \(b, s, 3\)"),
        (hidden("b", "s", "hidden"), r"\(b, s, hidden\)"),
        (hidden("b", 2), r"last_hidden_state \(b, 2\)"),
    ],
)  # fmt: skip
def test_a_graph_of_another_signature_is_refused(graph: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse(tiny.model(graph), NOWHERE)


def test_probes_survive_the_way_through_the_file() -> None:
    vector = np.array([np.pi, -1e-30], np.float32)
    probes = (
        tiny.probe("", vector, vector * 2),
        tiny.probe("naïve 文 \0 🙂", vector, vector, prompt="query"),
    )
    found = parse(tiny.model(probes=probes), NOWHERE).probes
    assert [(probe.ids, probe.prompt) for probe in found] == [
        ((tiny.CLS, tiny.SEP), None),
        ((tiny.CLS, tiny.A, tiny.UNK, tiny.UNK, tiny.UNK, tiny.SEP), "query"),
    ]
    assert [probe.text for probe in found] == ["", "naïve 文 \0 🙂"]
    np.testing.assert_array_equal(found[0].reference, vector)
    np.testing.assert_array_equal(found[0].output, vector * 2)


def test_a_path_may_be_bytes(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "x.onnx")
    assert read(os.fsencode(path)).path == path
    with pytest.raises(ModelError, match="there is no such file"):
        read(os.fsencode(tmp_path / "y.onnx"))


def test_a_file_that_cannot_be_opened_says_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tiny.write(tmp_path / "x.onnx")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match="cannot be read: Permission denied; check its perm"):
        read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with named pipes")
def test_a_pipe_is_no_model_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="this is a device or a pipe; give the path of a file"):
        read(tmp_path / "x.onnx")
