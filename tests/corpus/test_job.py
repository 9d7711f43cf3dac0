import errno
import gzip
import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import CorpusError, Encoder, OptionError
from embedge.corpus import files as corpus_files
from embedge.corpus import journal, publish
from embedge.corpus.inputs import Corpus, find_sources, stream_source, text_source
from embedge.corpus.job import Summary
from embedge.corpus.journal import journal_path
from embedge.corpus.layout import LAYOUTS
from embedge.corpus.saved import verify_vectors

from .conftest import MakeCorpus, embed_corpus

pytestmark = pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")

TEXTS = [" ".join("abc"[(i * j) % 3] for j in range(i % 20)) for i in range(100)]
LINES = "".join(json.dumps({"key": f"k{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS))


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """Make the n-th commit of a job fail with an error, half of it being written."""

    def plant(commits: int, error: BaseException) -> None:
        store = journal.Journal._store
        left = commits

        def failing(self: journal.Journal, state: journal.State) -> None:
            nonlocal left
            if state.read > self.state.read:
                left -= 1
                if left == 0:
                    raise error
            store(self, state)

        monkeypatch.setattr(journal.Journal, "_store", failing)

    return plant


def metadata(encoder: Encoder, **changes: Any) -> dict[str, Any]:
    """Of the 100 TEXTS; checksums as sha256sum gives them for the plain bytes."""
    counts = encoder.count_tokens(TEXTS, prompt=changes.get("prompt", "passage"))
    vectors = encoder.encode_document(TEXTS)
    return {
        "format": 1,
        "model": "tiny",
        "fingerprint": encoder.fingerprint,
        "dim": 16,
        "dtype": "float32",
        "similarity": "cosine",
        "prompt": "passage",
        "overflow": "truncate",
        "columns": [],
        "text_column": None,
        "rows": 100,
        "ids_are_rows": True,
        "skipped": 0,
        "tokens": sum(counts),
        "truncated": sum(count > encoder.max_tokens for count in counts),
        "input_sha256": sha256("".join(f"[null, {len(text)}]\n{text}" for text in TEXTS).encode()),
        "vectors_sha256": sha256(vectors.tobytes()),
        "ids_sha256": sha256("".join(f"{row}\n" for row in range(100)).encode()),
        **changes,
    }


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("chunk", [7, 4096])
def test_vectors_metadata_and_summary(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, chunk: int
) -> None:
    output = tmp_path / "v.npy"
    summary = embed_corpus(encoder, corpus({"a.jsonl": LINES}), output, chunk=chunk)
    vectors = np.load(output, mmap_mode="r", allow_pickle=False)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, encoder.encode_document(TEXTS))
    expected = metadata(encoder)
    own = sha256(json.dumps(expected, sort_keys=True).encode())
    known = json.loads((tmp_path / "v.npy.json").read_text())
    assert known == {**expected, "metadata_sha256": own}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "v.npy", "v.npy.json"]
    counts = encoder.count_tokens(TEXTS, prompt="passage")
    assert summary == Summary(
        output=str(output),
        texts=100,
        tokens=sum(counts),
        truncated=sum(count > encoder.max_tokens for count in counts),
        skipped=0,
        seconds=summary.seconds,
        fingerprint=encoder.fingerprint,
        sha256=hashlib.sha256(output.read_bytes()).hexdigest(),
    )
    assert 0 < summary.seconds < 60


def test_ids_are_kept(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> None:
    embed_corpus(encoder, corpus({"a.jsonl": LINES}, id="key"), tmp_path / "v.npy", chunk=30)
    ids = [json.loads(line) for line in (tmp_path / "v.npy.ids").read_text().splitlines()]
    assert ids == [f"k{i}" for i in range(100)]
    assert json.loads((tmp_path / "v.npy.json").read_text())["ids_are_rows"] is False
    # The next job without ids leaves no old ones behind.
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", force=True)
    assert not (tmp_path / "v.npy.ids").exists()


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_dtypes(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, dtype: str) -> None:
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", dtype=dtype, chunk=30)
    stored = np.load(tmp_path / "v.npy")
    expected = LAYOUTS[dtype].store(encoder.encode_document(TEXTS))
    assert stored.dtype == expected.dtype
    assert np.array_equal(stored, expected)


def test_an_empty_corpus(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> None:
    summary = embed_corpus(encoder, corpus({"a.txt": ""}), tmp_path / "v.npy")
    assert (summary.texts, summary.tokens) == (0, 0)
    assert np.load(tmp_path / "v.npy", mmap_mode="r").shape == (0, 16)


@pytest.mark.parametrize("name", ["v.npy", "v.jsonl", "v.parquet", "v.arrow"])
@pytest.mark.parametrize("commits", [1, 2, 4])
def test_an_interrupted_job_resumes(
    name: str,
    commits: int,
    corpus: MakeCorpus,
    encoder: Encoder,
    tmp_path: Path,
    stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name in ("v.parquet", "v.arrow"):
        pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    files = {"a.jsonl": LINES + '{"key": 1}\n', "b.jsonl.gz": gzip.compress(LINES.encode())}
    options: dict[str, Any] = {"dtype": "int8", "on_error": "skip", "chunk": 40}
    (tmp_path / "whole").mkdir()
    embed_corpus(encoder, corpus(files, id="key"), tmp_path / "whole" / name, **options)
    with monkeypatch.context():
        stop_after(commits, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            embed_corpus(encoder, corpus(files, id="key"), tmp_path / name, **options)
        assert not (tmp_path / name).exists()
    monkeypatch.undo()
    committed = count_committed(monkeypatch)
    summary = embed_corpus(encoder, corpus(files, id="key"), tmp_path / name, **options)
    assert sum(committed) == 200 - 40 * (commits - 1) + (commits == 4)
    assert (summary.texts, summary.skipped) == (200, 1)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert not journal_path(tmp_path / name).exists()


def count_committed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Watch how many texts each commit from now on adds."""
    counts: list[int] = []
    append = journal.Journal.append

    def counted(self: journal.Journal, chunk: journal.StoredChunk, state: journal.State) -> None:
        counts.append(state.texts - self.state.texts)
        append(self, chunk, state)

    monkeypatch.setattr(journal.Journal, "append", counted)
    return counts


class Unfinished:
    """A job of a.jsonl that has stopped after 60 texts."""

    def __init__(self, folder: Path, encoder: Encoder, stop_after: Callable[..., None]) -> None:
        self.output = folder / "v.npy"
        (folder / "a.jsonl").write_bytes(LINES.encode())
        stop_after(4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            self.run(encoder)

    def run(self, encoder: Encoder, name: str = "a.jsonl", **options: Any) -> Summary:
        fields = {key: options.pop(key, None) for key in ("field", "id")}
        path = self.output.parent / name
        return embed_corpus(
            encoder,
            Corpus(find_sources([path]), **fields),
            self.output,
            **{"chunk": 20, **options},
        )


@pytest.fixture
def unfinished(
    tmp_path: Path,
    encoder: Encoder,
    stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Unfinished:
    job = Unfinished(tmp_path, encoder, stop_after)
    monkeypatch.undo()
    return job


def test_it_does_not_resume_with_another_model(unfinished: Unfinished, other_model: Path) -> None:
    with pytest.raises(CorpusError, match=r"v\.npy: .* differs from this one: fingerprint is '"):
        unfinished.run(Encoder(other_model, threads=1))


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"dtype": "int8"}, "dtype is 'int8', but was 'float32'"),
        ({"prompt": "query"}, "prompt is 'query', but was 'passage'"),
        ({"overflow": "mean"}, "overflow is 'mean', but was 'truncate'"),
        ({"id": "key"}, "id is 'key', but was None"),
        ({"field": "key"}, "field is 'key', but was 'text'"),
    ],
)
def test_it_does_not_resume_with_other_options(
    unfinished: Unfinished, encoder: Encoder, options: dict[str, Any], difference: str
) -> None:
    with pytest.raises(CorpusError, match=difference):
        unfinished.run(encoder, **options)
    assert unfinished.run(encoder).texts == 100


def test_it_does_not_resume_with_another_dim(unfinished: Unfinished, model_file: Path) -> None:
    with pytest.raises(CorpusError, match="dim is 8, but was 16"):
        unfinished.run(Encoder(model_file, threads=1, dim=8))


def test_it_does_not_resume_with_another_input(unfinished: Unfinished, encoder: Encoder) -> None:
    path = unfinished.output.with_name("a.jsonl")
    path.rename(path.with_name("b.jsonl"))
    with pytest.raises(CorpusError, match=r"inputs is \['.*b\.jsonl'\], but was \['.*a\.jsonl'\]"):
        unfinished.run(encoder, "b.jsonl")
    path.write_bytes((LINES + "{}\n").encode())
    size = len(LINES)
    with pytest.raises(CorpusError, match=rf"bytes of .*a\.jsonl is {size + 3}, but was {size}"):
        unfinished.run(encoder)
    path.write_bytes(LINES.replace("a b", "b a").encode())
    with pytest.raises(CorpusError, match="has read 60 rows, but the input's first rows are not"):
        unfinished.run(encoder)
    path.write_bytes(LINES.encode())
    assert unfinished.run(encoder).texts == 100


def test_the_input_is_known_by_its_content_and_not_its_date(
    unfinished: Unfinished, encoder: Encoder
) -> None:
    os.utime(unfinished.output.with_name("a.jsonl"), (0, 0))
    assert unfinished.run(encoder, chunk=33).texts == 100


def test_a_job_over_standard_input_resumes_when_the_same_input_is_given_again(
    tmp_path: Path, encoder: Encoder, stop_after: Callable[..., None], monkeypatch: Any
) -> None:
    def run(lines: str) -> Summary:
        path = tmp_path / "stdin"
        path.write_text(lines)
        with path.open("rb") as stream:
            rows = Corpus([stream_source(stream, "jsonl")])
            return embed_corpus(encoder, rows, tmp_path / "v.npy", chunk=20)

    stop_after(4, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(LINES)
    monkeypatch.undo()
    with pytest.raises(CorpusError, match="has read 60 rows"):
        run(LINES[:1000])
    assert run(LINES).texts == 100
    assert np.array_equal(np.load(tmp_path / "v.npy"), encoder.encode_document(TEXTS))


def test_a_full_disk_leaves_a_state_to_resume_from(
    corpus: MakeCorpus,
    encoder: Encoder,
    tmp_path: Path,
    stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_after(3, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    message = r"v\.npy: cannot be written \(No space left on device\); .*rerun the same command"
    with pytest.raises(CorpusError, match=message):
        embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", chunk=20)
    monkeypatch.undo()
    committed = count_committed(monkeypatch)
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", chunk=20)
    assert sum(committed) == 60
    assert np.array_equal(np.load(tmp_path / "v.npy"), encoder.encode_document(TEXTS))


BAD = '{"text": "a"}\n{"text": "b"}\nno json\n{"text": 5}\n{"text": "c"}\n'


def test_a_bad_row_stops_the_job_and_may_be_fixed(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = r"a\.jsonl, line 3: not valid JSON \(.*\)\. Fix the row, or add --on-error skip, .*"
    with pytest.raises(CorpusError, match=message + "after the 2 texts that are done") as info:
        embed_corpus(encoder, corpus({"a.jsonl": BAD}), tmp_path / "v.npy")
    assert (info.value.file, info.value.line) == (str(tmp_path / "a.jsonl"), 3)
    assert not (tmp_path / "v.npy").exists()
    mended = BAD.replace("no json", '{"text": "mended"}').replace("5", '"a b"')
    committed = count_committed(monkeypatch)
    assert embed_corpus(encoder, corpus({"a.jsonl": mended}), tmp_path / "v.npy").texts == 5
    assert committed == [3]
    expected = encoder.encode_document(["a", "b", "mended", "a b", "c"])
    assert np.array_equal(np.load(tmp_path / "v.npy"), expected)


def test_bad_rows_are_skipped_and_counted(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    output = tmp_path / "v.npy"
    with pytest.raises(CorpusError, match="line 3"):
        embed_corpus(encoder, corpus({"a.jsonl": BAD}), output)
    summary = embed_corpus(encoder, corpus({"a.jsonl": BAD}), output, on_error="skip")
    assert (summary.texts, summary.skipped) == (3, 2)
    assert np.array_equal(np.load(output), encoder.encode_document(["a", "b", "c"]))
    # The ids of the others are their numbers in the input.
    assert (tmp_path / "v.npy.ids").read_text() == "0\n1\n4\n"
    skipped = (tmp_path / "v.npy.skipped").read_text().splitlines()
    file = (tmp_path / "a.jsonl").as_posix()
    reason = "expected the field 'text' to be a string, got 5"
    assert json.loads(skipped[1]) == {
        "number": 3, "file": file, "line": 4, "reason": reason, "row": '{"text": 5}',
    }  # fmt: skip
    assert json.loads(skipped[0])["line"] == 3
    assert len(skipped) == 2


def test_texts_that_are_too_long_are_bad_rows_under_overflow_error(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    files = {"a.txt": "a\n" + "b " * 20 + "\nc"}
    reason = "23 tokens, but the model takes 16"
    with pytest.raises(CorpusError, match=rf"a\.txt, line 2: {reason}"):
        embed_corpus(encoder, corpus(files), tmp_path / "v.npy", overflow="error")
    summary = embed_corpus(
        encoder, corpus(files), tmp_path / "v.npy", overflow="error", on_error="skip"
    )
    assert (summary.texts, summary.skipped, summary.truncated, summary.tokens) == (2, 1, 0, 8)
    assert np.array_equal(np.load(tmp_path / "v.npy"), encoder.encode_document(["a", "c"]))
    assert json.loads((tmp_path / "v.npy.skipped").read_text())["reason"] == reason


def test_all_rows_may_be_bad(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> None:
    rows = corpus({"a.jsonl": "x\n" * 50})
    summary = embed_corpus(encoder, rows, tmp_path / "v.npy", on_error="skip", chunk=8)
    assert (summary.texts, summary.skipped) == (0, 50)
    assert np.load(tmp_path / "v.npy").shape == (0, 16)


def test_prompt_and_overflow_reach_the_encoder(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    done = embed_corpus(
        encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", prompt="query", overflow="mean"
    )
    assert done.truncated == 0  # windows cover the long texts
    expected = encoder.encode(TEXTS, prompt="query", overflow="mean")
    assert np.array_equal(np.load(tmp_path / "v.npy"), expected)
    known = json.loads((tmp_path / "v.npy.json").read_text())
    assert (known["prompt"], known["overflow"]) == ("query", "mean")
    with pytest.raises(OptionError, match="no prompt named 'no'"):
        embed_corpus(encoder, corpus({"b.jsonl": LINES}), tmp_path / "w.npy", prompt="no")
    assert not journal_path(tmp_path / "w.npy").exists()  # nothing was done: nothing is left


def test_outputs_that_cannot_be(encoder: Encoder, tmp_path: Path) -> None:
    def run(path: Path, **options: Any) -> None:
        embed_corpus(encoder, Corpus([text_source(["a"])]), path, **options)

    with pytest.raises(
        OptionError,
        match=r"v\.txt cannot be written: its name should end in \.npy, \.jsonl, ",
    ):
        run(tmp_path / "v.txt")
    with pytest.raises(
        OptionError, match=r"v\.npy cannot be written: there is no folder .*no; make"
    ):
        run(tmp_path / "no" / "v.npy")
    (tmp_path / "v.npy").mkdir()
    with pytest.raises(OptionError, match=r"v\.npy cannot be written: it is a folder"):
        run(tmp_path / "v.npy")
    with pytest.raises(OptionError, match=r"expected dtype to be one of float32, .* got 'int4'"):
        run(tmp_path / "w.npy", dtype="int4")
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]
    (tmp_path / "a.jsonl").write_text(LINES)
    with pytest.raises(OptionError, match=r"a\.jsonl cannot be written: it is one of the inputs"):
        embed_corpus(encoder, Corpus(find_sources([tmp_path / "a.jsonl"])), tmp_path / "a.jsonl")


@pytest.mark.parametrize("dim", [None, 8])
@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_dtypes_without_a_scale_need_unit_vectors(
    dtype: str, dim: int | None, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a model does not normalize, its vectors are not normalized when cut either."""
    encoder = Encoder(model_file, threads=1, dim=dim)
    monkeypatch.setattr(type(encoder), "info", {**encoder.info, "normalized": False})
    with pytest.raises(OptionError, match=f"dtype {dtype} keeps a vector's direction"):
        embed_corpus(encoder, Corpus([text_source(["a"])]), tmp_path / "v.npy", dtype=dtype)


def test_two_jobs_do_not_write_one_output(
    unfinished: Unfinished, encoder: Encoder, tmp_path: Path
) -> None:
    connection = sqlite3.connect(journal_path(unfinished.output), isolation_level=None)
    with closing(connection):
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(CorpusError, match=r"v\.npy: another process is writing it"):
            unfinished.run(encoder)
    assert unfinished.run(encoder).texts == 100


def test_a_disk_that_is_full_before_the_first_commit_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite then keeps its rollback journal, as it cannot roll back."""

    class Full(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            (tmp_path / ".v.npy.embedge-journal").write_bytes(b"left behind")

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Full))
    with (
        pytest.raises(CorpusError, match="database or disk is full"),
        journal.open_journal(tmp_path / "v.npy", {}),
    ):
        raise sqlite3.OperationalError("database or disk is full")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", range(225, 256, 2))
def test_a_name_that_is_too_long_leaves_no_file(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, length: int
) -> None:
    rows = corpus({"a.txt": "a"})
    try:
        embed_corpus(encoder, rows, tmp_path / f"{'n' * (length - 4)}.npy")
    except CorpusError:
        assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    else:
        assert len(list(tmp_path.iterdir())) == 3


def test_a_journal_keeps_others_out_and_waits_for_the_disk(tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    with journal.open_journal(output, {}) as first:
        with (
            pytest.raises(CorpusError, match=r"v\.npy: another process is writing it"),
            journal.open_journal(output, {}),
        ):
            pass
        first.save(replace(first.state, read=1))
        settings = {
            name: first._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "fullfsync", "locking_mode", "journal_mode")
        }
    full = 2
    expected = {"synchronous": full, "fullfsync": 1, "locking_mode": "exclusive"}
    assert settings == {**expected, "journal_mode": "delete"}


def change(output: Path, column: str, value: Any) -> None:
    """Change the job's row of an unfinished job's journal."""
    with closing(sqlite3.connect(journal_path(output))) as connection, connection:
        connection.execute(f"UPDATE job SET {column} = ?", (value,))


def test_a_job_that_has_done_nothing_may_change(unfinished: Unfinished, encoder: Encoder) -> None:
    with closing(sqlite3.connect(journal_path(unfinished.output))) as connection, connection:
        ((identity,),) = connection.execute("SELECT identity FROM job")
        values = (b"{}", journal._checksum([identity, b"{}"]))
        connection.execute("UPDATE job SET state = ?, crc32 = ?", values)
        connection.execute("DELETE FROM chunks")
    unfinished.run(encoder, dtype="int8")
    assert np.load(unfinished.output).dtype == np.int8


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("state", "{", "the journal is damaged"),
        ("state", '{"none": 1}', "the journal is damaged"),
        ("identity", "5", "the journal is damaged"),
        ("format", 99, "written by another version"),
    ],
)
def test_a_damaged_journal(
    unfinished: Unfinished, encoder: Encoder, column: str, value: Any, message: str
) -> None:
    change(unfinished.output, column, value)
    with pytest.raises(CorpusError, match=rf"\.v\.npy\.embedge: {message}.*; delete it to start"):
        unfinished.run(encoder)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("job", "identity"),
        ("job", "state"),
        ("chunks", "vectors"),
        ("chunks", "ids"),
        ("chunks", "skipped"),
        ("chunks", "columns"),
    ],
)
def test_a_flipped_bit_in_the_journal_is_noticed(
    unfinished: Unfinished, encoder: Encoder, table: str, column: str
) -> None:
    with closing(sqlite3.connect(journal_path(unfinished.output))) as connection, connection:
        ((before,), *_) = connection.execute(f"SELECT {column} FROM {table}").fetchall()
        after = bytearray(before or b" ")
        after[len(after) // 2] ^= 1
        connection.execute(f"UPDATE {table} SET {column} = ?", (bytes(after),))
    with pytest.raises(CorpusError, match=r"the journal is damaged \(a checksum differs\); delete"):
        unfinished.run(encoder)
    assert not unfinished.output.exists()


@pytest.mark.parametrize("content", [b"no database at all, but text" * 99, b"SQLite format 3"])
def test_a_journal_that_is_no_database(
    unfinished: Unfinished, encoder: Encoder, content: bytes
) -> None:
    path = journal_path(unfinished.output)
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"the journal is damaged .*; delete it to start over"):
        unfinished.run(encoder)
    assert path.read_bytes() == content


def test_a_journal_that_is_cut_short(unfinished: Unfinished, encoder: Encoder) -> None:
    os.truncate(journal_path(unfinished.output), 9000)
    with pytest.raises(CorpusError, match=r"the journal is damaged .*; delete it to start over"):
        unfinished.run(encoder)


def test_files_are_on_the_disk_before_the_first_is_moved(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, synced, then moved, the metadata last: a power cut cannot mix two outputs."""
    names = {}
    events: list[tuple[str, str]] = []
    fsync, move, opened = os.fsync, Path.replace, Path.open

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        events.append(("sync", names.get(os.fstat(descriptor).st_ino, "folder")))

    def moved(path: Path, target: Path) -> Path:
        events.append(("move", target.name))
        return move(path, target)

    def watched(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = opened(path, mode, *arguments, **options)
        if "w" in mode:
            names[path.stat().st_ino] = path.name.removeprefix(".").removesuffix(".new")
        return stream

    rows = corpus({"a.jsonl": LINES + "{}\n"}, id="key")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", moved)
    monkeypatch.setattr(Path, "open", watched)
    embed_corpus(encoder, rows, tmp_path / "v.npy", on_error="skip")
    files = ["v.npy", "v.npy.ids", "v.npy.skipped", "v.npy.json"]
    assert events[:4] == [("sync", name) for name in files]
    moves = [("move", "v.npy.ids"), ("move", "v.npy.skipped"), ("move", "v.npy")]
    last = [("sync", "folder"), ("move", "v.npy.json"), ("sync", "folder")]
    if sys.platform == "win32":
        last = [last[1]]
    assert events[4:] == [*moves, *last]


def test_what_others_have_written_is_not_overwritten(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    for name in ("v.npy", "v.npy.ids", "v.npy.skipped", "v.npy.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(CorpusError, match=rf"{name}: the file exists .* --force"):
            embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy")
        assert (tmp_path / name).read_text() == "mine"
        assert not journal_path(tmp_path / "v.npy").exists()
        (tmp_path / name).unlink()


def test_a_job_that_is_done_is_not_done_again(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "v.npy"
    first = embed_corpus(encoder, corpus({"a.jsonl": LINES}), output)
    committed = count_committed(monkeypatch)
    again = embed_corpus(encoder, corpus({"a.jsonl": LINES}), output)
    assert again == replace(first, seconds=0.0, unchanged=True)
    for options in ({"dtype": "int8"}, {"prompt": "query"}):
        with pytest.raises(CorpusError, match=r"v\.npy: the file exists"):
            embed_corpus(encoder, corpus({"a.jsonl": LINES}), output, **options)
    with pytest.raises(CorpusError, match=r"v\.npy: the file exists"):
        embed_corpus(encoder, corpus({"a.jsonl": LINES + LINES}), output)
    output.write_bytes(output.read_bytes()[:-1])
    with pytest.raises(CorpusError, match=r"v\.npy: the file exists"):
        embed_corpus(encoder, corpus({"a.jsonl": LINES}), output)
    assert committed == []
    assert embed_corpus(encoder, corpus({"a.jsonl": LINES}), output, force=True).texts == 100


def test_a_file_that_appears_during_a_job_is_not_overwritten(
    unfinished: Unfinished, encoder: Encoder
) -> None:
    unfinished.output.write_text("mine")
    with pytest.raises(CorpusError, match=r"v\.npy: the file exists"):
        unfinished.run(encoder)
    assert unfinished.output.read_text() == "mine"
    assert unfinished.run(encoder, force=True).texts == 100


def test_a_file_that_appears_while_the_output_is_written_is_not_overwritten(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write = tmp_path / "v.npy", corpus_files.write_synced

    def written(*arguments: Any, **options: Any) -> None:
        write(*arguments, **options)
        output.write_text("mine")

    monkeypatch.setattr(publish, "write_synced", written)
    with pytest.raises(CorpusError, match=r"v\.npy: the file exists"):
        embed_corpus(encoder, corpus({"a.jsonl": LINES}), output)
    assert output.read_text() == "mine"
    assert not (tmp_path / "v.npy.json").exists()
    monkeypatch.undo()
    assert embed_corpus(encoder, corpus({"a.jsonl": LINES}), output, force=True).texts == 100


def test_vectors_never_stand_beside_the_metadata_of_others(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, metadata = tmp_path / "v.npy", tmp_path / "v.npy.json"
    embed_corpus(encoder, corpus({"a.txt": "a\nb"}), output)
    moved: list[tuple[str, bool]] = []

    def watched(source: Path, target: Path) -> None:
        moved.append((target.name, metadata.exists()))
        corpus_files.replace(source, target)

    monkeypatch.setattr(publish, "replace", watched)
    embed_corpus(encoder, corpus({"a.txt": "a\nb\nc"}), output, force=True)
    assert moved == [("v.npy", False), ("v.npy.json", False)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_permissions_are_kept_and_links_followed(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    (tmp_path / "private").mkdir()
    real = tmp_path / "private" / "real.npy"
    real.touch(0o600)
    link = tmp_path / "v.npy"
    link.symlink_to(real)
    embed_corpus(encoder, corpus({"a.jsonl": LINES}, id="key"), link, force=True)
    assert link.is_symlink()
    assert np.array_equal(np.load(real), encoder.encode_document(TEXTS))
    names = ["real.npy", "real.npy.ids", "real.npy.json"]
    assert sorted(path.name for path in real.parent.iterdir()) == names
    assert {(real.parent / name).stat().st_mode & 0o777 for name in names} == {0o600}
    assert verify_vectors(link).rows == 100


def test_equal_texts_are_encoded_once(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[list[str]] = []
    encode = encoder.encode

    def watched(texts: list[str], **options: Any) -> Any:
        encoded.append(texts)
        return encode(texts, **options)

    monkeypatch.setattr(encoder, "encode", watched)
    texts = ["a", "b", "a", "a c", "b"]
    summary = embed_corpus(encoder, corpus({"a.txt": "\n".join(texts)}), tmp_path / "v.npy")
    monkeypatch.undo()
    assert encoded == [["a", "b", "a c"]]
    assert (summary.texts, summary.tokens) == (
        5, sum(encoder.count_tokens(texts, prompt="passage")),
    )  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "v.npy"), encoder.encode_document(texts))
