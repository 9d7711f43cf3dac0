"""Texts to vectors: promises, bad input, prompts, processes and threads."""

import itertools
import json
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedge import Encoder, ModelError, OptionError, TextError
from embedge_export.checks.evaluate import Pairs, spearman

from . import tiny
from .conftest import Run

WORDS = [
    "the", "a", "river", "bank", "password", "reset", "Zürich", "naïve", "東京", "は", "雨", "🙂",
    "שלום", "עולם", "مرحبا", "بالعالم", "สวัสดี", "https://example.org/a?b=c", "3.14", "...", "don't",
]  # fmt: skip


def varied(count: int) -> list[str]:
    """Texts of many lengths and scripts, the same in every run."""
    rng = np.random.default_rng(7)
    lengths = [*rng.geometric(0.2, count - 8), 40, 60, 80, 120]
    return ["", " ", "\0", "A", *(" ".join(rng.choice(WORDS, size)) for size in lengths)]


def assert_independent(encoder: Encoder, texts: list[str]) -> None:
    """One by one, all at once, shuffled, in part and on one thread or two: the same bits."""
    alone = np.stack([encoder.encode(text) for text in texts])
    np.testing.assert_array_equal(encoder.encode(texts), alone)
    order = np.random.default_rng(1).permutation(len(texts))
    single = Encoder(encoder.info["path"], threads=1)
    np.testing.assert_array_equal(single.encode([texts[i] for i in order]), alone[order])
    part = list(encoder.encode_iter(texts[::3]))
    np.testing.assert_array_equal(np.stack(part), alone[::3])
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)


@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_a_vector_does_not_depend_on_other_texts_nor_threads(default: Encoder) -> None:
    assert_independent(default, varied(200))


@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_vectors_of_real_texts_do_not_depend_on_other_texts_nor_threads(
    default: Encoder, eval_data: Path
) -> None:
    pairs = (eval_data / "stsb/dev.tsv").read_text("utf-8").split("\n")[1:-1:10]
    odd = (eval_data / "text/odd_text.jsonl").read_text("utf-8").split("\n")[:-1:15]
    naughty = json.loads((eval_data / "text/blns.json").read_text("utf-8"))[::3]
    texts = [line.split("\t")[0] for line in pairs] + [json.loads(line)["text"] for line in odd]
    texts += naughty
    assert len(texts) > 400
    assert_independent(default, texts)


@pytest.mark.parametrize("dim", [1, 7, 100])
def test_shortened_vectors_do_not_depend_on_other_texts_either(tmp_path: Path, dim: int) -> None:
    encoder = Encoder(tiny.write(tmp_path / "x.onnx", tiny.wide(100)), dim=dim, threads=1)
    texts = [" ".join("abc"[i // 3**k % 3] for k in range(i % 9 + 1)) for i in range(60)]
    alone = np.stack([encoder.encode(text) for text in texts])
    np.testing.assert_array_equal(encoder.encode(texts), alone)


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("a b", (3, 4)),
        ("", (1, 0)),
        ("   \t\n\u3000", (1, 0)),
        ("c b", (-1, 4)),
        ("ab", (3, 8)),
        ("x", (1, -1)),
        ("a\0\r\nb", (3, 4)),
        ("🙂 b", (1, 3)),
        ("A B", (3, 4)),
    ],
)
def test_vectors_by_hand(encoder: Encoder, text: str, total: tuple[int, int]) -> None:
    """[CLS] (1, 0) and the text's tokens, summed as in tiny.py, over the length of the sum."""
    vector = encoder.encode(text)
    assert vector.shape == (2,)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, np.array(total) / np.linalg.norm(total), atol=1e-6)


def test_one_text_is_a_row_of_many(encoder: Encoder) -> None:
    vectors = encoder.encode(["a b", "b"])
    assert vectors.shape == (2, 2)
    np.testing.assert_array_equal(encoder.encode("b"), vectors[1])


@pytest.mark.parametrize(
    "texts", [[], (), iter(()), np.array([], dtype=str), pd.Series([], dtype=str)]
)
def test_no_texts_give_no_rows(encoder: Encoder, texts: Any) -> None:
    vectors = encoder.encode(texts)
    assert vectors.shape == (0, 2)
    assert vectors.dtype == np.float32
    assert list(encoder.encode_iter(texts)) == []
    assert encoder.count_tokens(texts) == []


@pytest.mark.parametrize(
    "texts",
    [
        ("a b", "b"),
        (text for text in ["a b", "b"]),
        np.array(["a b", "b"]),
        np.array(["a b", "b"], dtype=object),
        pd.Series(["a b", "b"], index=[5, 3]),
        pd.Series(["a b", "b"], dtype="category"),
    ],
    ids=["tuple", "generator", "array of str", "array of objects", "Series", "category"],
)
def test_any_container_of_str_gives_its_rows(encoder: Encoder, texts: Any) -> None:
    np.testing.assert_array_equal(encoder.encode(texts), encoder.encode(["a b", "b"]))


@pytest.mark.parametrize("method", ["encode", "encode_iter", "count_tokens", "encode_query"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (b"a b", "expected a str or an iterable of str, got bytes"),
        (None, "an iterable of str, got NoneType"),
        (7, "an iterable of str, got int"),
        ([b"a"], "expected text 0 to be a str, got bytes; decode it first"),
        (["a", None], "expected text 1 to be a str, got NoneType"),
        (
            pd.Series(["a", "b", float("nan")], dtype=object),
            "expected text 2 to be a str, got float",
        ),
        (np.array([1, 2]), "expected text 0 to be a str, got int64"),
        ([["a", "b"]], "expected text 0 to be a str, got list"),
        (["a"] * 5000 + [3], "expected text 5000 to be a str, got int"),
        (["a"] * 4100 + ["b\ud83d"], re.escape("text 4100 holds a lone surrogate (U+D83D) at")),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_is_no_text_is_named(encoder: Encoder, method: str, texts: Any, message: str) -> None:
    with pytest.raises(TextError, match=message):
        list(getattr(encoder, method)(texts))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\t\u2003",
        "\0",
        "a\0b",
        "👩‍👩‍👧‍👦🇩🇪",
        "שלום עולם",
        "مرحبا بالعالم",
        "東京は雨です",
        "ภาษาไทยไม่มีช่องว่าง",
        "\u202etfel ot thgir\u202c",
        "\ufffd\ufeff\uffff",
        "e" + "\u0301" * 500,
        "[CLS] [SEP] [MASK] [PAD]",
        "x" * 5000,
    ],
    ids=ascii,
)
@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_odd_texts_give_finite_unit_vectors(default: Encoder, text: str) -> None:
    vector = default.encode(text)
    assert vector.shape == (default.dim,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


RSS = """
import resource, sys
from embedge import Encoder
encoder = Encoder(sys.argv[1] if sys.argv[1:] else None, threads=1)
encoder.encode("warm up")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
{work}
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize(
    ("work", "bound"),
    [
        # 10 MB of text in memory once or twice; all of its tokens would take over 1000 MB.
        ("text = 'lorem ipsum ' * 833_000; encoder.encode(text)", 60),
        ("text = '文' * 10_000_000; encoder.encode(text)", 100),
        ("text = 'x' * 10_000_000; encoder.encode(text)", 60),
        # To count, all of its 600,000 tokens are read, piece by piece.
        ("text = 'lorem ipsum ' * 200_000; encoder.count_tokens(text)", 150),
    ],
    ids=["words", "no spaces", "one word", "count"],
)
def test_a_text_of_10_mb_takes_bounded_megabytes(python: Run, work: str, bound: int) -> None:
    result = python("-W", "ignore", "-c", RSS.format(work=work))
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < bound


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_encode_iter_takes_bounded_megabytes(python: Run, tmp_path: Path) -> None:
    """A hundred thousand vectors would be 150 MB; one window of them is 6 MB."""
    path = tiny.write(tmp_path / "wide.onnx", tiny.wide(384))
    work = "for _ in encoder.encode_iter('a b c' for _ in range(100_000)): pass"
    result = python("-c", RSS.format(work=work), str(path))
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 60


def test_prompts_are_prepended(encoder: Encoder) -> None:
    """query is "a ", passage is "b "; encode uses neither unasked."""
    np.testing.assert_array_equal(encoder.encode("b", prompt="query"), encoder.encode("a b"))
    np.testing.assert_array_equal(encoder.encode_query(["b"]), encoder.encode(["a b"]))
    np.testing.assert_array_equal(encoder.encode_document("a"), encoder.encode("b a"))
    (vector,) = encoder.encode_iter(["b"], prompt="query")
    np.testing.assert_array_equal(vector, encoder.encode("a b"))
    assert encoder.count_tokens("b", prompt="query") == 4
    assert encoder.count_tokens(["b", "b c"]) == [3, 4]


def test_a_default_prompt_is_used_unasked(tmp_path: Path, encoder: Encoder) -> None:
    settings = replace(tiny.SETTINGS, default_prompt="passage")
    own = Encoder(tiny.write(tmp_path / "x.onnx", tiny.model(settings=settings)))
    np.testing.assert_array_equal(own.encode("a"), encoder.encode("b a"))
    np.testing.assert_array_equal(own.encode("b", prompt="query"), encoder.encode("a b"))
    np.testing.assert_array_equal(own.encode_query("b"), encoder.encode("a b"))
    assert own.count_tokens("a") == 4


def test_a_model_without_prompts_encodes_queries_as_texts(tmp_path: Path) -> None:
    settings = replace(tiny.SETTINGS, prompts={})
    own = Encoder(tiny.write(tmp_path / "x.onnx", tiny.model(settings=settings)))
    np.testing.assert_array_equal(own.encode_query("a b"), own.encode("a b"))
    np.testing.assert_array_equal(own.encode_document("a b"), own.encode("a b"))
    with pytest.raises(OptionError, match="no prompt named 'query'; its prompts: none"):
        own.encode("a", prompt="query")


@pytest.mark.parametrize("prompt", [["query"], {}, 0, b"query"])
def test_what_is_no_name_of_a_prompt_is_refused(encoder: Encoder, prompt: Any) -> None:
    with pytest.raises(OptionError, match=re.escape(f"has no prompt named {prompt!r}; its prom")):
        encoder.encode("a", prompt=prompt)


def test_an_unknown_prompt_is_refused_with_those_there_are(encoder: Encoder) -> None:
    message = (
        "the model has no prompt named 'doc'; its prompts: 'query', 'passage'|'passage', 'query'"
    )
    with pytest.raises(OptionError, match=message):
        encoder.encode([], prompt="doc")
    with pytest.raises(OptionError, match=message):
        encoder.encode_iter([], prompt="doc")


def test_dim_keeps_leading_components_and_normalizes(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "x.onnx", tiny.wide(16))
    full, short = Encoder(path), Encoder(path, dim=5)
    assert (full.dim, short.dim) == (16, 5)
    expected = full.encode(["a", "b c"])[:, :5]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode(["a", "b c"]), expected, atol=1e-6)
    np.testing.assert_array_equal(Encoder(path, dim=16).encode("a"), full.encode("a"))
    assert short.encode([]).shape == (0, 5)


@pytest.mark.parametrize("dim", [0, -1, 3, 1.0, True, "2"])
def test_a_dim_that_there_is_not_is_refused(tiny_file: Path, dim: Any) -> None:
    message = re.escape(f"expected dim to be an integer from 1 to 2, or None; got {dim!r}")
    with pytest.raises(OptionError, match=message):
        Encoder(tiny_file, dim=dim)


def test_what_an_encoder_says_of_itself(encoder: Encoder, tiny_file: Path) -> None:
    assert encoder.dim == 2
    assert encoder.max_tokens == 8
    assert re.fullmatch("[0-9a-f]{64}", encoder.fingerprint)
    assert encoder.info["fingerprint"] == encoder.fingerprint
    assert encoder.info["path"] == str(tiny_file)
    assert encoder.info["providers"] == ["CPUExecutionProvider"]
    assert repr(encoder) == f"Encoder('tiny', dim=2, fingerprint='{encoder.fingerprint[:12]}')"
    json.dumps(encoder.info)


def test_encode_iter_keeps_order_and_reads_an_endless_source_bit_by_bit(encoder: Encoder) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for read in itertools.count(1):
            yield "a" if read % 2 else "b b b"

    found = list(itertools.islice(encoder.encode_iter(endless()), 5000))
    expected = encoder.encode(["a", "b b b"])
    np.testing.assert_array_equal(np.stack(found), np.tile(expected, (2500, 1)))
    assert 5000 <= read <= 2 * 4096


def test_positions_hold_past_one_window_of_texts(tmp_path: Path) -> None:
    encoder = Encoder(tiny.write(tmp_path / "x.onnx", tiny.wide(8)), threads=2)
    texts = ["".join("abc"[i // 3**k % 3] for k in range(9)) for i in range(9000)]
    vectors = encoder.encode(texts)
    assert len(np.unique(vectors, axis=0)) > 500
    for i in (0, 1, 4094, 4095, 4096, 4097, 8191, 8192, 8999):
        np.testing.assert_array_equal(vectors[i], encoder.encode(texts[i]))


def test_encode_iter_takes_one_text_too(encoder: Encoder) -> None:
    (vector,) = encoder.encode_iter("a b")
    np.testing.assert_array_equal(vector, encoder.encode("a b"))


def test_a_source_that_breaks_raises_its_own_error(encoder: Encoder) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        encoder.encode(broken())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    table = tiny.TABLE.copy()
    table[tiny.B] = bad
    encoder = Encoder(tiny.write(tmp_path / "x.onnx", tiny.model(tiny.graph(table=table))))
    assert encoder.encode("a").tolist() == [1, 0]
    with pytest.raises(ModelError, match="vectors that are not finite; export it again"):
        encoder.encode(["a", "b"])


def test_a_pickled_encoder_loads_its_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tmp_path / "x.onnx", tiny.wide(16))
    monkeypatch.chdir(tmp_path)
    encoder = Encoder("x.onnx", threads=2, dim=4)
    data = pickle.dumps(encoder)
    assert len(data) < 1000
    monkeypatch.chdir("/")
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy.encode(["a b"]), encoder.encode(["a b"]))
    assert copy.fingerprint == encoder.fingerprint
    (tmp_path / "x.onnx").unlink()
    with pytest.raises(ModelError, match="no such file"):
        pickle.loads(data)


def test_a_pickled_default_encoder_finds_the_default_of_where_it_wakes(default: Encoder) -> None:
    data = pickle.dumps(default)
    assert b"all-MiniLM" not in data
    assert pickle.loads(data).fingerprint == default.fingerprint


def test_errors_survive_a_process_boundary(encoder: Encoder) -> None:
    with pytest.raises(TextError) as caught:
        encoder.encode(["a", 5])  # type: ignore[list-item]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.position) == (TextError, str(caught.value), 1)


@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_threads_may_share_an_encoder(default: Encoder) -> None:
    texts = varied(60)[:-4]
    parts = [texts[i::4] for i in range(4)]
    expected = [default.encode(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            for found, right in zip(pool.map(default.encode, parts), expected, strict=True):
                np.testing.assert_array_equal(found, right)


def test_truncated_texts_are_counted_across_threads(encoder: Encoder) -> None:
    with pytest.warns(UserWarning, match="Shown once") as told, ThreadPoolExecutor(4) as pool:
        list(pool.map(encoder.encode, [["a b " * 9] * 10] * 20))
    assert encoder.truncated == 200
    assert len(told) == 1


PROCESSES = """
import multiprocessing, sys
import numpy as np
from embedge import Encoder

def encode(texts):
    return encoder.encode(texts)

def fresh(texts):
    return Encoder(sys.argv[1], threads=2).encode(texts)

def carried(given):
    return given.encode(["a", "b c"])

encoder = Encoder(sys.argv[1], threads=2)
if __name__ == "__main__":
    texts = ["a", "b c"] * 50
    expected = encoder.encode(texts)
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        for work in (encode, fresh):
            (got,) = pool.map(work, [texts])
            assert np.array_equal(got, expected)
        (got,) = pool.map(carried, [encoder])
        assert np.array_equal(got, expected[:2])
    print("same")
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_started_either_way_give_the_same_vectors(
    python: Run, tiny_file: Path, tmp_path: Path, method: str
) -> None:
    if method == "fork" and sys.platform in ("win32", "darwin"):
        pytest.skip("no safe fork on this system")
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    result = python("-W", "ignore", str(script), str(tiny_file), method)
    assert result.stdout == "same\n", result.stderr


INTERRUPTED = """
import itertools, signal
from embedge import Encoder
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell's job starts us
encoder = Encoder(threads=2)
print("started", flush=True)
try:
    for _ in encoder.encode_iter(f"a river {i} " * 20 for i in itertools.count()):
        pass
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_stops_an_encode() -> None:
    """It would never end by itself; the limit of a minute is for machines under load."""
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            with pytest.raises(subprocess.TimeoutExpired, match="timed out after 1 seconds"):
                process.wait(1)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60)[0] == "interrupted\n"
            assert process.returncode == 0
        finally:
            process.kill()


def test_vectors_agree_with_published_ones(default: Encoder, eval_data: Path) -> None:
    """fp32 vectors of text-embeddings-inference, fastembed and the README of sentence-transformers.

    The bounds are those of int8: 0.997 is what one vector in a hundred may fall to, a component
    of a 384-wide unit vector is 0.05, and a cosine between texts moves by less than 0.01.
    """
    entries = json.loads((eval_data / "canonical_vectors.json").read_text("utf-8"))["entries"]
    published = {entry["id"]: entry for entry in entries}
    entry = published["tei/test_bert__bert_single"]
    for dim in (384, 128, 8):  # cut to their leading components and scaled to length 1
        leading = np.array(entry["vectors"])[:, :dim]
        leading /= np.linalg.norm(leading)
        assert (Encoder(dim=dim).encode(entry["texts"]) * leading).sum() >= 0.99

    entry = published["fastembed/hello-world"]
    first = default.encode(entry["texts"])[:, :5]
    np.testing.assert_allclose(first, entry["vectors"], rtol=0, atol=0.01)

    entry = published["sentence-transformers/readme"]
    vectors = default.encode(entry["texts"])
    found = default.similarity(vectors, vectors)
    np.testing.assert_allclose(found, entry["matrix"], rtol=0, atol=0.01)


def test_sts_benchmark_correlation(default: Encoder, eval_data: Path) -> None:
    """Spearman on the 1500 pairs of STS-B dev: 86.72 for the fp32 source."""
    pairs = Pairs.read(eval_data / "stsb" / "dev.tsv")
    assert len(pairs.scores) == 1500
    assert spearman(pairs, default.encode, "cosine") == pytest.approx(86.72, abs=0.3)


def test_dim_does_not_normalize_where_the_model_does_not(tmp_path: Path) -> None:
    """The mean of [CLS] (1, 0), b (0, 4) and [SEP] (0, 0) is (1/3, 4/3); its first number 1/3."""
    nodes = [*tiny.NODES[:6], tiny.node("Div", ["sum", "count"], "sentence_embedding")]
    settings = replace(tiny.SETTINGS, normalized=False)
    path = tiny.write(tmp_path / "x.onnx", tiny.model(tiny.graph(nodes=nodes), settings))
    np.testing.assert_allclose(Encoder(path).encode("b"), [1 / 3, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(Encoder(path, dim=1).encode("b"), [1 / 3], rtol=1e-6)
