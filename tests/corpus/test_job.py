import errno
import gzip
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import CorpusError, Encoder, OptionError
from embedge.corpus import job, work
from embedge.corpus.inputs import Corpus, find_sources, stream_source, text_source
from embedge.corpus.job import Summary, embed_corpus
from embedge.corpus.layout import LAYOUTS
from embedge.corpus.work import work_folder

from .conftest import MakeCorpus

pytestmark = pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")

TEXTS = [" ".join("abc"[(i * j) % 3] for j in range(i % 20)) for i in range(100)]
LINES = "".join(json.dumps({"key": f"k{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS))


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """Make the n-th commit of a job fail with an error, half of it being written."""

    def plant(commits: int, error: BaseException) -> None:
        append = work.Work.append
        left = commits

        def failing(self: work.Work, vectors: bytes, *rest: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self._files[0].write(vectors[: len(vectors) // 2])
                raise error
            append(self, vectors, *rest)

        monkeypatch.setattr(work.Work, "append", failing)

    return plant


def facts(encoder: Encoder, **changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "model": "tiny",
        "fingerprint": encoder.fingerprint,
        "dim": 16,
        "dtype": "float32",
        "similarity": "cosine",
        "prompt": None,
        "overflow": "truncate",
        "rows": 100,
        "ids_are_rows": True,
        **changes,
    }


@pytest.mark.parametrize("chunk", [7, 4096])
def test_vectors_facts_and_summary(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, chunk: int
) -> None:
    output = tmp_path / "v.npy"
    summary = embed_corpus(encoder, corpus({"a.jsonl": LINES}), output, chunk=chunk)
    vectors = np.load(output, mmap_mode="r", allow_pickle=False)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, encoder.encode(TEXTS))
    assert json.loads((tmp_path / "v.npy.json").read_text()) == facts(encoder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "v.npy", "v.npy.json"]
    counts = encoder.count_tokens(TEXTS)
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
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy")
    assert not (tmp_path / "v.npy.ids").exists()


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_dtypes(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, dtype: str) -> None:
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", dtype=dtype, chunk=30)
    stored = np.load(tmp_path / "v.npy")
    expected = LAYOUTS[dtype].store(encoder.encode(TEXTS))
    assert stored.dtype == expected.dtype
    assert np.array_equal(stored, expected)


def test_an_empty_corpus(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> None:
    summary = embed_corpus(encoder, corpus({"a.txt": ""}), tmp_path / "v.npy")
    assert (summary.texts, summary.tokens) == (0, 0)
    assert np.load(tmp_path / "v.npy", mmap_mode="r").shape == (0, 16)


@pytest.mark.parametrize("name", ["v.npy", "v.jsonl", "v.parquet", "v.arrow"])
@pytest.mark.parametrize("commits", [1, 2, 4])
def test_an_interrupted_job_goes_on(
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
    encoded = count_encoded(encoder, monkeypatch)
    summary = embed_corpus(encoder, corpus(files, id="key"), tmp_path / name, **options)
    assert sum(encoded) == 200 - min(40 * (commits - 1), 200) + (commits == 4)
    assert (summary.texts, summary.skipped) == (200, 1)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert not work_folder(tmp_path / name).exists()


def count_encoded(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Watch how many texts are encoded by the calls from now on."""
    counts: list[int] = []
    encode = encoder.encode

    def counted(texts: list[str], **options: Any) -> Any:
        counts.append(len(texts))
        return encode(texts, **options)

    monkeypatch.setattr(encoder, "encode", counted)
    return counts


class Unfinished:
    """A job of a.jsonl that has stopped after 60 texts."""

    def __init__(self, folder: Path, encoder: Encoder, stop_after: Callable[..., None]) -> None:
        self.output = folder / "v.npy"
        (folder / "a.jsonl").write_text(LINES)
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


def test_it_does_not_go_on_with_another_model(unfinished: Unfinished, other_model: Path) -> None:
    with pytest.raises(CorpusError, match=r"v\.npy: .* differs from this one: fingerprint is '"):
        unfinished.run(Encoder(other_model, threads=1))


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"dtype": "int8"}, "dtype is 'int8', but was 'float32'"),
        ({"prompt": "query"}, "prompt is 'query', but was None"),
        ({"overflow": "mean"}, "overflow is 'mean', but was 'truncate'"),
        ({"id": "key"}, "id is 'key', but was None"),
        ({"field": "key"}, "field is 'key', but was 'text'"),
    ],
)
def test_it_does_not_go_on_with_other_options(
    unfinished: Unfinished, encoder: Encoder, options: dict[str, Any], difference: str
) -> None:
    with pytest.raises(CorpusError, match=difference):
        unfinished.run(encoder, **options)
    assert unfinished.run(encoder).texts == 100


def test_it_does_not_go_on_with_another_dim(unfinished: Unfinished, model_file: Path) -> None:
    with pytest.raises(CorpusError, match="dim is 8, but was 16"):
        unfinished.run(Encoder(model_file, threads=1, dim=8))


def test_it_does_not_go_on_with_another_input(unfinished: Unfinished, encoder: Encoder) -> None:
    path = unfinished.output.with_name("a.jsonl")
    path.rename(path.with_name("b.jsonl"))
    with pytest.raises(CorpusError, match=r"inputs is \['.*b\.jsonl'\], but was \['.*a\.jsonl'\]"):
        unfinished.run(encoder, "b.jsonl")
    path.write_text(LINES + "{}\n")
    size = len(LINES)
    with pytest.raises(CorpusError, match=rf"bytes of .*a\.jsonl is {size + 3}, but was {size}"):
        unfinished.run(encoder)
    path.write_text(LINES.replace("a b", "b a"))
    with pytest.raises(CorpusError, match="has read 60 rows, but the input's first rows are not"):
        unfinished.run(encoder)
    path.write_text(LINES)
    assert unfinished.run(encoder).texts == 100


def test_the_input_is_known_by_its_content_and_not_its_date(
    unfinished: Unfinished, encoder: Encoder
) -> None:
    os.utime(unfinished.output.with_name("a.jsonl"), (0, 0))
    assert unfinished.run(encoder, chunk=33).texts == 100


def test_standard_input_goes_on_when_it_is_given_again(
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
    assert np.array_equal(np.load(tmp_path / "v.npy"), encoder.encode(TEXTS))


def test_a_full_disk_leaves_a_state_to_go_on_from(
    corpus: MakeCorpus,
    encoder: Encoder,
    tmp_path: Path,
    stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_after(3, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    message = r"v\.npy: cannot be written \(No space left on device\); .*run the same command again"
    with pytest.raises(CorpusError, match=message):
        embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", chunk=20)
    monkeypatch.undo()
    encoded = count_encoded(encoder, monkeypatch)
    embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", chunk=20)
    assert sum(encoded) == 60
    assert np.array_equal(np.load(tmp_path / "v.npy"), encoder.encode(TEXTS))


BAD = '{"text": "a"}\n{"text": "b"}\nno json\n{"text": 5}\n{"text": "c"}\n'


def test_a_bad_row_stops_and_may_be_mended(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = r"a\.jsonl, line 3: not valid JSON \(.*\)\. Mend the row, or add --on-error skip, .*"
    with pytest.raises(CorpusError, match=message + "after the 2 texts that are done") as info:
        embed_corpus(encoder, corpus({"a.jsonl": BAD}), tmp_path / "v.npy")
    assert (info.value.file, info.value.line) == (str(tmp_path / "a.jsonl"), 3)
    assert not (tmp_path / "v.npy").exists()
    mended = BAD.replace("no json", '{"text": "mended"}').replace("5", '"a b"')
    encoded = count_encoded(encoder, monkeypatch)
    assert embed_corpus(encoder, corpus({"a.jsonl": mended}), tmp_path / "v.npy").texts == 5
    assert encoded == [3]
    expected = encoder.encode(["a", "b", "mended", "a b", "c"])
    assert np.array_equal(np.load(tmp_path / "v.npy"), expected)


def test_bad_rows_are_skipped_and_counted(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    output = tmp_path / "v.npy"
    with pytest.raises(CorpusError, match="line 3"):
        embed_corpus(encoder, corpus({"a.jsonl": BAD}), output)
    summary = embed_corpus(encoder, corpus({"a.jsonl": BAD}), output, on_error="skip")
    assert (summary.texts, summary.skipped) == (3, 2)
    assert np.array_equal(np.load(output), encoder.encode(["a", "b", "c"]))
    # The ids of the others are their numbers in the input.
    assert (tmp_path / "v.npy.ids").read_text() == "0\n1\n4\n"
    skipped = (tmp_path / "v.npy.skipped").read_text().splitlines()
    file = str(tmp_path / "a.jsonl")
    reason = "the field 'text' should be a string, but is 5"
    assert json.loads(skipped[1]) == {
        "number": 3, "file": file, "line": 4, "reason": reason, "row": '{"text": 5}',
    }  # fmt: skip
    assert json.loads(skipped[0])["line"] == 3
    assert len(skipped) == 2


def test_texts_that_are_too_long_are_bad_rows_under_overflow_error(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    files = {"a.txt": "a\n" + "b " * 20 + "\nc"}
    reason = "22 tokens, but the model takes 16"
    with pytest.raises(CorpusError, match=rf"a\.txt, line 2: {reason}"):
        embed_corpus(encoder, corpus(files), tmp_path / "v.npy", overflow="error")
    summary = embed_corpus(
        encoder, corpus(files), tmp_path / "v.npy", overflow="error", on_error="skip"
    )
    assert (summary.texts, summary.skipped, summary.truncated, summary.tokens) == (2, 1, 0, 6)
    assert np.array_equal(np.load(tmp_path / "v.npy"), encoder.encode(["a", "c"]))
    assert json.loads((tmp_path / "v.npy.skipped").read_text())["reason"] == reason


def test_all_rows_may_be_bad(corpus: MakeCorpus, encoder: Encoder, tmp_path: Path) -> None:
    rows = corpus({"a.jsonl": "x\n" * 50})
    summary = embed_corpus(encoder, rows, tmp_path / "v.npy", on_error="skip", chunk=8)
    assert (summary.texts, summary.skipped) == (0, 50)
    assert np.load(tmp_path / "v.npy").shape == (0, 16)


def test_prompt_and_overflow_reach_the_encoder(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path
) -> None:
    embed_corpus(
        encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy", prompt="query", overflow="mean"
    )
    expected = encoder.encode(TEXTS, prompt="query", overflow="mean")
    assert np.array_equal(np.load(tmp_path / "v.npy"), expected)
    known = json.loads((tmp_path / "v.npy.json").read_text())
    assert known == facts(encoder, prompt="query", overflow="mean")
    with pytest.raises(OptionError, match="no prompt named 'no'"):
        embed_corpus(encoder, corpus({"b.jsonl": LINES}), tmp_path / "w.npy", prompt="no")
    assert not work_folder(tmp_path / "w.npy").exists()  # nothing was done: nothing is left


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
    with pytest.raises(OptionError, match=r"dtype should be one of float32, .* but is 'int4'"):
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
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl", reason="there are no such locks on this system")
    reached, go = threading.Event(), threading.Event()
    finish = job._finish

    def slow(*arguments: Any) -> None:
        reached.set()
        go.wait(10)
        finish(*arguments)

    monkeypatch.setattr(job, "_finish", slow)
    rows = corpus({"a.jsonl": LINES})
    first = threading.Thread(target=embed_corpus, args=(encoder, rows, tmp_path / "v.npy"))
    first.start()
    assert reached.wait(10)
    with pytest.raises(CorpusError, match=r"v\.npy: another process is writing it"):
        embed_corpus(encoder, corpus({"a.jsonl": LINES}), tmp_path / "v.npy")
    go.set()
    first.join()
    assert len(np.load(tmp_path / "v.npy")) == 100


def test_a_job_that_has_done_nothing_may_change(unfinished: Unfinished, encoder: Encoder) -> None:
    journal = work_folder(unfinished.output) / "journal.json"
    journal.write_text(json.dumps({**json.loads(journal.read_text()), "state": {"sizes": []}}))
    unfinished.run(encoder, dtype="int8")
    assert np.load(unfinished.output).dtype == np.int8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "the journal is damaged"),
        ('{"format": 1, "identity": {}, "state": {}}', "the journal is damaged"),
        ('{"format": 99}', "written by another version"),
    ],
)
def test_a_damaged_journal(
    unfinished: Unfinished, encoder: Encoder, content: str, message: str
) -> None:
    folder = work_folder(unfinished.output)
    (folder / "journal.json").write_text(content)
    with pytest.raises(CorpusError, match=rf"{message}.*; delete .*embedge to start again"):
        unfinished.run(encoder)


def test_a_vectors_file_that_is_too_short(unfinished: Unfinished, encoder: Encoder) -> None:
    folder = work_folder(unfinished.output)
    os.truncate(folder / "vectors.npy", 200)
    with pytest.raises(CorpusError, match=r"vectors\.npy: the file is damaged; delete .*embedge"):
        unfinished.run(encoder)
