"""`embedge embed --output`, `search` and `duplicates`, in this process."""

import hashlib
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embedge import Encoder
from embedge.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")

TEXTS = ["a b", "c", "a b", "b b c"]


class Command:
    """Runs `embedge` in an empty folder."""

    def __init__(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._model, self._capsys = model, capsys

    def __call__(self, name: str, *arguments: str, status: int = 0) -> tuple[str, str]:
        assert main([name, *arguments, "--model", str(self._model), "--threads", "1"]) == status
        return self._capsys.readouterr()

    def fails(self, *arguments: str) -> str:
        out, err = self(*arguments, status=2)
        assert out == ""
        assert err.startswith("embedge: ")
        assert err.count("\n") == 1
        return err


@pytest.fixture
def run(
    model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("\n".join(TEXTS))
    lines = [json.dumps({"body": text, "key": f"k{i}"}) for i, text in enumerate(TEXTS)]
    Path("a.jsonl").write_text("\n".join(lines))
    return Command(model_file, capsys)


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def load(name: str) -> Any:
    return np.load(name, allow_pickle=False)


def test_embed_files_and_print_a_summary(run: Command, encoder: Encoder) -> None:
    Path("folder").mkdir()
    Path("folder/b.txt").write_text("b " * 20)
    out, err = run("embed", "a.txt", "folder", "--output", "v.npy", "--json")
    texts = [*TEXTS, "b " * 20]
    assert np.array_equal(load("v.npy"), encoder.encode_document(texts))
    summary = json.loads(out)
    assert 0 < summary.pop("seconds") < 60
    assert summary == {
        "output": "v.npy",
        "texts": 5,
        "tokens": sum(encoder.count_tokens(texts, prompt="passage")),
        "truncated": 1,
        "skipped": 0,
        "fingerprint": encoder.fingerprint,
        "sha256": hashlib.sha256(Path("v.npy").read_bytes()).hexdigest(),
        "unchanged": False,
    }
    assert re.fullmatch(
        rf"embedge: 5 texts, {sum(encoder.count_tokens(texts, prompt='passage'))} tokens in "
        r"\d+\.\d s \([\d,]+ texts/s\): v\.npy\n"
        r"embedge: 1 texts were truncated to 16 tokens\n",
        err,
    )


def test_embed_with_all_options(run: Command, encoder: Encoder) -> None:
    Path("a.jsonl").write_text(Path("a.jsonl").read_text() + "\nno json\n")
    options = ["--field", "body", "--id", "key", "--on-error", "skip", "--dtype", "float16"]
    out, err = run("embed", "a.jsonl", "--output", "v.npy", *options, "--dim", "8", "--quiet")
    assert out == ""
    assert err.splitlines()[1:] == ["embedge: 1 rows were skipped: see v.npy.skipped"]
    assert load("v.npy").dtype == np.float16
    assert load("v.npy").shape == (4, 8)
    assert json.loads(Path("v.npy.ids").read_text().splitlines()[3]) == "k3"


def test_column_is_another_word_for_field(run: Command, encoder: Encoder) -> None:
    assert run("embed", "a.jsonl", "-qo", "v.npy", "--column", "body") == ("", "")
    assert np.array_equal(load("v.npy"), encoder.encode_document(TEXTS))


@pytest.mark.parametrize("given", [[], ["-"]])
def test_embed_standard_input(
    run: Command, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    type_in(monkeypatch, b"text\na\nb\n")
    run("embed", *given, "--format", "csv", "--output", "v.npy")
    assert np.array_equal(load("v.npy"), encoder.encode_document(["a", "b"]))


def test_with_output_arguments_are_files(run: Command) -> None:
    err = run.fails("embed", "a.txt", "no.txt", "a b", "--output", "v.npy")
    assert err == "embedge: there is no such file or folder: no.txt, a b\n"
    err = run.fails("embed", "data/*.txt", "\0", "x" * 5000, "--output", "v.npy")
    assert err.startswith("embedge: there is no such file or folder: data/*.txt, ")
    assert err.endswith("; the shell has found no files for a pattern, give their folder\n")


def test_without_output_arguments_are_texts(run: Command) -> None:
    out, _ = run("embed", "a.txt")
    assert len(out.splitlines()) == 1
    for options in (["--field", "x"], ["--id", "x"], ["--dtype", "int8"], ["--on-error", "skip"]):
        assert f"{options[0]} is for files, which need --output too" in run.fails(
            "embed", "a", *options
        )


def test_the_output_is_no_input(run: Command) -> None:
    for _ in range(2):
        run("embed", ".", "--field", "body", "--output", "v.jsonl")
        assert len(Path("v.jsonl").read_text().splitlines()) == 8


def test_a_bad_row_is_one_clean_line(run: Command) -> None:
    err = run.fails("embed", "a.jsonl", "--output", "v.npy")
    assert err.startswith("embedge: a.jsonl, line 1: there is no field 'text' (fields: 'body', 'k")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "v.npy", "v.jsonl"])
def test_search(run: Command, name: str, encoder: Encoder) -> None:
    fields = ["--field", "body", "--id", "key"] if name == "a.jsonl" else []
    if name.startswith("v"):
        run("embed", "a.jsonl", "--field", "body", "--id", "key", "--output", name)
    texts = not name.startswith("v")
    out, err = run("search", "a b", name, "--top", "2", *fields)
    assert err == ""
    query = encoder.encode_query("a b")
    documents = encoder.encode_document(TEXTS)
    scores = encoder.similarity(query, documents)[0]
    best = sorted(range(4), key=lambda row: (-scores[row], row))[:2]
    keys = [str(row) if name == "a.txt" else f"k{row}" for row in best]
    expected = [
        "\t".join([f"{scores[row]:.4f}", key, *([TEXTS[row]] if texts else [])])
        for row, key in zip(best, keys, strict=True)
    ]
    assert out.splitlines() == expected
    out, _ = run("search", "a b", name, "--json", *fields)
    first, *others = map(json.loads, out.splitlines())
    assert len(others) == 3
    assert first["score"] == pytest.approx(float(scores[best[0]]), abs=1e-6)
    assert (first["row"], str(first["id"])) == (best[0], keys[0])
    assert first["text"] == (TEXTS[best[0]] if texts else None)


def test_search_in_vectors_of_fewer_dims(run: Command) -> None:
    run("embed", "a.txt", "--output", "v.npy", "--dim", "4")
    out, _ = run("search", "a b", "v.npy")
    assert len(out.splitlines()) == 4


@pytest.mark.parametrize("name", ["a.txt", "v.npy", "-"])
def test_duplicates(run: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "v.npy":
        run("embed", "a.txt", "--output", name)
    for options in ([], ["--json"]):
        type_in(monkeypatch, b"\n".join(text.encode() for text in TEXTS))
        out, err = run("duplicates", name, "--threshold", "0.9999", *options)
        assert err == ""
        if options:
            texts = [None, None] if name == "v.npy" else ["a b", "a b"]
            assert json.loads(out) == {"rows": [0, 2], "ids": [0, 2], "texts": texts}
        else:
            assert out == ("0\n2\n" if name == "v.npy" else "0\ta b\n2\ta b\n")


def test_groups_are_apart(run: Command) -> None:
    Path("b.txt").write_text("a\nb\na\nb\nc b b")
    out, _ = run("duplicates", "b.txt", "--threshold", "0.9999")
    assert out == "0\ta\n2\ta\n\n1\tb\n3\tb\n"


@pytest.mark.parametrize("command", [["search", "a b"], ["duplicates"]])
def test_vectors_of_another_model_are_refused(
    run: Command, other_model: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    run("embed", "a.txt", "--output", "v.npy")
    assert main([*command, "v.npy", "--model", str(other_model)]) == 2
    err = capsys.readouterr().err
    assert "v.npy: made with tiny (fingerprint " in err
    assert "vectors of different models cannot be compared" in err


def test_arguments_that_are_no_corpus(run: Command) -> None:
    run("embed", "a.txt", "--output", "v.npy")
    assert "give one file of vectors, or only texts" in run.fails("search", "a", "v.npy", "a.txt")
    assert "--id says how texts are read, but v.npy holds vectors" in run.fails(
        "duplicates", "v.npy", "--id", "key"
    )
    assert "no such file or folder: no.txt" in run.fails("search", "a", "no.txt")
    assert "expected a top of 1 or more" in run.fails("search", "a", "a.txt", "--top", "0")


def test_skipped_rows_of_a_search_are_told(run: Command) -> None:
    Path("a.jsonl").write_text('{"text": "a"}\nno json\n')
    out, err = run("search", "a", "a.jsonl", "--on-error", "skip")
    assert len(out.splitlines()) == 1
    assert err.startswith("embedge: skipped a.jsonl, line 2: not valid JSON (")
    assert "a.jsonl, line 2: not valid JSON" in run.fails("duplicates", "a.jsonl")


def test_columns_and_texts_are_kept(run: Command) -> None:
    lines = [{"body": "a", "key": 7, "n": 1, "o": [1]}, {"body": "b", "key": 8, "o": None}]
    Path("k.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = ["--field", "body", "--id", "key", "--with-text", "--keep", "n", "o"]
    run("embed", "k.jsonl", "-o", "v.jsonl", *options)
    found = [json.loads(line) for line in Path("v.jsonl").read_text().splitlines()]
    kept = [{key: row[key] for key in row if key != "vector"} for row in found]
    assert kept == [
        {"id": 7, "n": 1, "o": [1], "body": "a"},
        {"id": 8, "o": None, "body": "b"},
    ]
    assert "a .npy file has no columns" in run.fails("embed", "k.jsonl", "-o", "v.npy", *options)
    message = "the column 'id' cannot be kept"
    assert message in run.fails("embed", "k.jsonl", "-o", "w.jsonl", *options, "--keep", "id")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pip install 'embedge[corpus]'")
    run("embed", "k.jsonl", "-o", "v.parquet", *options)
    table = parquet.read_table("v.parquet").drop_columns(["vector"])
    assert table.to_pydict() == {
        "id": [7, 8], "n": [1, None], "o": ["[1]", None], "body": ["a", "b"],
    }  # fmt: skip


def test_output_to_standard_output(run: Command, encoder: Encoder) -> None:
    Path("a.jsonl").write_text(Path("a.jsonl").read_text() + "\nno json\n")
    options = ["--field", "body", "--id", "key", "--on-error", "skip", "--with-text", "--quiet"]
    out, err = run("embed", "a.jsonl", "-o", "-", *options)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["id"], row["body"]) for row in rows] == [
        (f"k{i}", text) for i, text in enumerate(TEXTS)
    ]
    vectors = np.array([row["vector"] for row in rows], np.float32)
    assert np.array_equal(vectors, encoder.encode_document(TEXTS))
    assert err.startswith("embedge: skipped a.jsonl, line 5: not valid JSON")
    assert sorted(path.name for path in Path().iterdir()) == ["a.jsonl", "a.txt"]


def test_many_queries(run: Command) -> None:
    run("embed", "a.txt", "-o", "v.npy")
    Path("q.txt").write_text("a b\nc\n")
    expected = [
        json.dumps({"query": query, **json.loads(line)})
        for query in ("a b", "c")
        for line in run("search", query, "v.npy", "-n", "2", "--json")[0].splitlines()
    ]
    out, _ = run("search", "--queries", "q.txt", "v.npy", "-n", "2", "--json")
    assert out.splitlines() == expected
    out, _ = run("search", "--queries", "q.txt", "a.txt", "-n", "1")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["a b", "c"]
    assert "expected files to search after the query, got none" in run.fails("search", "a b")


def test_a_dim_that_the_model_was_not_trained_for_is_told(run: Command) -> None:
    _, err = run("embed", "a", "--dim", "8")
    assert "the model was not trained to be truncated to --dim 8, which costs quality" in err
    assert run("embed", "a", "--dim", "16")[1] == ""


def test_another_jobs_output_is_not_overwritten(run: Command) -> None:
    run("embed", "a.txt", "-o", "v.npy")
    Path("b.txt").write_text("another")
    assert "v.npy: the file exists" in run.fails("embed", "b.txt", "-o", "v.npy")
    assert len(load("v.npy")) == 4
    _, err = run("embed", "a.txt", "-o", "v.npy")
    assert err == "embedge: v.npy holds the vectors of these rows already; nothing was written\n"
    run("embed", "b.txt", "-o", "v.npy", "--force")
    assert len(load("v.npy")) == 1


@pytest.mark.parametrize("form", ["jsonl", "parquet", "arrow"])
def test_texts_that_were_kept_are_shown(run: Command, form: str) -> None:
    if form != "jsonl":
        pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    run("embed", "a.jsonl", "--field", "body", "--id", "key", "-o", f"v.{form}", "--with-text")
    expected, _ = run("search", "a b", "a.jsonl", "--field", "body", "--id", "key", "--json")
    assert run("search", "a b", f"v.{form}", "--json")[0] == expected
    assert run("duplicates", f"v.{form}", "--threshold", "0.9999")[0] == "k0\ta b\nk2\ta b\n"


def test_verify_vectors(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    run("embed", "a.txt", "-o", "v.npy")
    assert main(["verify", "v.npy"]) == 0
    out = capsys.readouterr().out
    assert out == "v.npy: 4 vectors of tiny, as they were written: their checksums match.\n"
    assert main(["verify", "v.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 4
    data = bytearray(Path("v.npy").read_bytes())
    data[-1] ^= 1
    Path("v.npy").write_bytes(data)
    assert main(["verify", "v.npy"]) == 2
    assert "the vectors are not those that were written" in capsys.readouterr().err
