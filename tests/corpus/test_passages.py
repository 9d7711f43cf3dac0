"""`embedge embed --passages`: rows of passages, alone and in context, with their places."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedge.documents
from embedge import CorpusError, Encoder, OptionError
from embedge.cli.main import main
from embedge.corpus import PassageOptions, Row, passages, read_metadata
from embedge.text.passages import Passage

from .conftest import MakeCorpus, embed_corpus

pytestmark = pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")

# The tiny model takes 16 tokens, two of them special, and knows the words a, b and c.
LONG = "a b c. " * 9
SHORT = "b c a"
PLACES = ("passage", "start", "end")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def documents(*texts: str) -> dict[str, str | bytes]:
    return {
        "d.jsonl": "\n".join(
            json.dumps({"text": text, "key": f"k{i}", "year": 2000 + i})
            for i, text in enumerate(texts)
        )
    }


def places(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in ("id", *PLACES)) for row in rows]


def test_each_passage_is_a_row_with_its_place(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path
) -> None:
    output = tmp_path / "v.jsonl"
    made = corpus(documents(LONG, SHORT), id="key", keep=["text", "year"])
    embed_corpus(encoder, made, output, passages=PassageOptions(with_document=True))
    rows = lines(output)
    expected: list[tuple[str, int | None, int, int]] = []
    for key, text in (("k0", LONG), ("k1", SHORT)):
        expected.append((key, None, 0, len(text)))
        parts = encoder.passages(text)
        expected += [(key, n, part.start, part.end) for n, part in enumerate(parts)]
    assert places(rows) == expected
    assert len(rows) > 5
    texts = {"k0": LONG, "k1": SHORT}
    assert all(row["text"] == texts[row["id"]][row["start"] : row["end"]] for row in rows)
    assert [row["year"] for row in rows] == [2000 + int(row["id"][1]) for row in rows]
    vectors = np.array([row["vector"] for row in rows], np.float32)
    assert np.array_equal(vectors, encoder.encode_document([row["text"] for row in rows]))
    metadata = read_metadata(output)
    assert metadata is not None
    assert metadata.passages == {
        "tokens": encoder.max_tokens,
        "overlap": 0,
        "context": False,
        "with_document": True,
    }
    assert metadata.columns == ["text", "year", "passage", "start", "end"]


def test_a_document_without_an_id_gets_its_number(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="needs embedge[corpus]")
    output = tmp_path / "v.parquet"
    embed_corpus(encoder, corpus(documents(LONG, SHORT)), output, passages=PassageOptions())
    table = pyarrow.read_table(output)
    assert [str(table.schema.field(name).type) for name in PLACES] == ["int64"] * 3
    rows = table.to_pylist()
    count = len(encoder.passages(LONG))
    assert [row["id"] for row in rows] == [0] * count + [1]
    assert "".join(LONG[row["start"] : row["end"]] for row in rows[:-1]) == LONG


def test_in_context_as_the_encoder_does(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path
) -> None:
    output = tmp_path / "v.jsonl"
    options = PassageOptions(tokens=12, overlap=3, context=True)
    embed_corpus(encoder, corpus(documents(SHORT, LONG)), output, passages=options)
    vectors = np.array([row["vector"] for row in lines(output)], np.float32)
    expected = [
        encoder.encode_passages(text, encoder.passages(text, 12, 3)) for text in (SHORT, LONG)
    ]
    assert np.array_equal(vectors, np.concatenate(expected))
    alone = encoder.encode_document([part.text for part in encoder.passages(LONG, 12, 3)])
    assert not np.allclose(vectors[1:], alone, atol=1e-3)


@pytest.mark.parametrize("context", [False, True])
def test_the_same_bytes_however_it_is_chunked_and_resumed(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path, context: bool
) -> None:
    split = PassageOptions(tokens=12, context=context, with_document=True)
    files = documents(LONG, SHORT, LONG * 2)
    embed_corpus(encoder, corpus(files), tmp_path / "whole.jsonl", passages=split)
    broken = documents(LONG, SHORT, LONG * 2)
    broken["d.jsonl"] = str(broken["d.jsonl"]) + '\n{"text": 5}'
    cut = tmp_path / "cut.jsonl"
    with pytest.raises(CorpusError, match=r"line 4: expected the field 'text' to be a string"):
        embed_corpus(encoder, corpus(broken), cut, passages=split, chunk=3)
    with pytest.raises(CorpusError, match=r"passages is .*'tokens': 13"):
        embed_corpus(encoder, corpus(files), cut, passages=PassageOptions(13, 0, context, True))
    done = embed_corpus(encoder, corpus(files), cut, passages=split, chunk=2)
    assert cut.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert done.texts == len(lines(cut))
    again = embed_corpus(encoder, corpus(files), cut, passages=split)
    assert again.unchanged


def test_stretches_of_a_long_document(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read at once is bounded, and begins so far before that most vectors are the same."""
    text = LONG * 20
    split = PassageOptions(tokens=12, context=True)
    embed_corpus(encoder, corpus(documents(text)), tmp_path / "one.jsonl", passages=split)
    read: list[int] = []
    encode = embedge.documents.encode_in_context

    def count(pipeline: Any, stretches: Any, *arguments: Any) -> Any:
        read.extend(len(stretch.text) for stretch in stretches)
        return encode(pipeline, stretches, *arguments)

    monkeypatch.setattr(passages, "_STRETCH", 200)
    monkeypatch.setattr(passages, "_LEAD", 60)
    monkeypatch.setattr(passages, "encode_in_context", count)
    embed_corpus(encoder, corpus(documents(text)), tmp_path / "more.jsonl", passages=split)
    one, more = lines(tmp_path / "one.jsonl"), lines(tmp_path / "more.jsonl")
    assert places(one) == places(more)
    assert len(read) > 5
    assert max(read) <= 320
    a, b = (np.array([row["vector"] for row in rows], np.float32) for rows in (one, more))
    assert (a * b).sum(1).min() > 0.9


def test_a_bad_row_is_skipped_and_numbers_its_document(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path
) -> None:
    output = tmp_path / "v.jsonl"
    rows = [{"text": LONG}, {"text": None}, {"text": SHORT}]
    files: dict[str, str | bytes] = {"d.jsonl": "\n".join(map(json.dumps, rows))}
    done = embed_corpus(encoder, corpus(files), output, passages=PassageOptions(), on_error="skip")
    assert done.skipped == 1
    assert {row["id"] for row in lines(output)} == {0, 2}


def test_a_prompt_of_its_own_fits_as_well(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path
) -> None:
    output = tmp_path / "v.jsonl"
    name = next(iter(encoder.info["prompts"]))
    done = embed_corpus(
        encoder, corpus(documents(LONG)), output, passages=PassageOptions(), prompt=name
    )
    assert done.truncated == 0


@pytest.mark.parametrize("context", [False, True])
def test_splitting_reads_no_further_than_it_has_to(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, context: bool
) -> None:
    """Memory does not grow with a document: its passages come as they are asked for."""
    taken: list[Passage] = []
    split = embedge.documents.split_to_fit

    def count(*arguments: Any) -> Iterator[Passage]:
        for part in split(*arguments):
            taken.append(part)
            yield part

    monkeypatch.setattr(passages, "split_to_fit", count)
    monkeypatch.setattr(passages, "_STRETCH", 200)
    splitter = passages.Splitter(encoder, None, "text", PassageOptions(12, context=context))
    rows = splitter.rows([Row(None, LONG * 100, "f", 1)])
    next(rows)
    assert len(taken) <= (20 if context else 1)


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        ("v.npy", [], r"\.npy file has no columns to hold passage, start, end; use \.parquet"),
        ("v.jsonl", ["start"], r"the column 'start' cannot be kept: the output has one of its own"),
    ],
)
def test_what_an_output_cannot_hold_is_refused(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path, name: str, keep: list[str], message: str
) -> None:
    made = corpus({"d.jsonl": '{"text": "a", "start": 1}'}, keep=keep)
    with pytest.raises(OptionError, match=message):
        embed_corpus(encoder, made, tmp_path / name, passages=PassageOptions())


def test_the_command(
    model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    encoder: Encoder,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d.txt").write_text(f"{LONG}\n{SHORT}\n", encoding="utf-8")
    common = ["embed", "d.txt", "--model", str(model_file), "--threads", "1", "--quiet"]
    options = ["--passages", "--passage-tokens", "12", "--overlap", "2", "--with-document"]
    assert main([*common, *options, "--with-text", "--output", "-"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [LONG, *(part.text for part in encoder.passages(LONG, 12, 2)), SHORT, SHORT]
    assert [row["text"] for row in rows] == expected
    assert main([*common, "--overlap", "2", "--output", "v.jsonl"]) == 2
    assert "expected --passages together with --overlap; add it" in capsys.readouterr().err
    assert main([*common, "--passages"]) == 2
    assert "--passages is for files, which need --output too" in capsys.readouterr().err
