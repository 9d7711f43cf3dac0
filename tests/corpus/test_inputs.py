import gzip
import io
import os
import sys
import tracemalloc
from pathlib import Path

import pytest

from embedge import CorpusError, OptionError
from embedge.corpus.inputs import Corpus, find_sources, stream_source, text_source

from .conftest import MakeCorpus, good

PYARROW = {"reason": "needs pip install 'embedge[corpus]'"}


def compress(data: bytes, suffix: str, tmp_path: Path) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    pyarrow = pytest.importorskip("pyarrow", **PYARROW)
    path = tmp_path / "compressed"
    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(data)
    return path.read_bytes()


CONTENT = {
    "txt": b"one\ntwo\n",
    "jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "csv": b"x,text\n1,one\n2,two\n",
    "tsv": b"x\ttext\n1\tone\n2\ttwo\n",
}


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kind", CONTENT)
def test_compressed_files(corpus: MakeCorpus, tmp_path: Path, kind: str, suffix: str) -> None:
    name = f"A.{kind}{suffix}".upper() if kind == "txt" else f"a.{kind}{suffix}"
    twice = compress(CONTENT[kind], suffix, tmp_path)
    if kind == "txt":  # several frames or members are one stream
        twice += twice
    texts = [row[1] for row in good(list(corpus({name: twice})))]
    assert texts == ["one", "two"] * (2 if kind == "txt" else 1)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_parquet(corpus: MakeCorpus, tmp_path: Path, suffix: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", **PYARROW)
    parquet = pytest.importorskip("pyarrow.parquet", **PYARROW)
    parquet.write_table(pyarrow.table({"text": ["one", "two"]}), tmp_path / "p")
    data = compress((tmp_path / "p").read_bytes(), suffix, tmp_path)
    assert [row[1] for row in good(list(corpus({f"a.parquet{suffix}": data})))] == ["one", "two"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_and_false_compressed_files(
    corpus: MakeCorpus, tmp_path: Path, suffix: str
) -> None:
    whole = compress(b"one\n" * 10_000, suffix, tmp_path)
    for data in (whole[:-9], b"this is not compressed"):
        with pytest.raises(
            CorpusError, match=rf"a\.txt{suffix}: cannot be read to its end"
        ) as info:
            list(corpus({f"a.txt{suffix}": data}))
        assert info.value.file == str(tmp_path / f"a.txt{suffix}")


def test_several_files_and_a_folder(tmp_path: Path) -> None:
    for name in ("b.txt", "folder/z.txt", "folder/a/1.csv", "folder/.hidden/x.txt", "folder/n.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\nof " + name if name.endswith("csv") else "of " + name)
    (tmp_path / "folder/out.jsonl").write_text("{}")
    sources = find_sources(
        [tmp_path / "b.txt", tmp_path / "folder"], ignore=tmp_path / "folder/out.jsonl"
    )
    rows = list(Corpus(sources))
    assert [row[1] for row in good(rows)] == ["of b.txt", "of folder/a/1.csv", "of folder/z.txt"]
    assert rows[1].file == str(tmp_path / "folder/a/1.csv")


def test_paths_that_are_no_inputs(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no\.txt: there is no such file or folder"):
        find_sources([tmp_path / "no.txt"])
    (tmp_path / "a.docx").touch()
    with pytest.raises(
        CorpusError, match=r"a\.docx: expected a name that ends in \.txt, \.jsonl, .* or \.zst"
    ):
        find_sources([tmp_path / "a.docx"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(CorpusError, match=r"folder: the folder holds no \.txt"):
        find_sources([tmp_path / "folder"])


@pytest.mark.skipif(sys.platform == "win32", reason="each Windows has other names of devices")
def test_a_device_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "null.txt").symlink_to(os.devnull)
    with pytest.raises(CorpusError, match=r"null\.txt: a device; give the path of a file"):
        find_sources([tmp_path / "null.txt"])


def test_standard_input_and_arguments() -> None:
    stream = io.BytesIO(CONTENT["csv"])
    corpus = Corpus([stream_source(stream, "csv")])
    assert corpus.sizes == {"standard input": None}
    assert corpus.fraction() is None
    assert [row[1] for row in good(list(corpus))] == ["one", "two"]
    assert not stream.closed
    rows = list(Corpus([text_source(["a\nb", "", "\udcff"])]))
    assert good(rows[:2]) == [(None, "a\nb", 1), (None, "", 2)]
    assert rows[2].reason == "'text' is not valid UTF-8 (byte 0xff)"


def test_fields_that_a_text_per_line_does_not_have(corpus: MakeCorpus) -> None:
    jsonl = {"b.jsonl": CONTENT["jsonl"]}
    with pytest.raises(OptionError, match=r"--field body: .*a\.txt is read as a text per line"):
        corpus({"a.txt": "one"}, field="body")
    with pytest.raises(OptionError, match=r"--id key: .*a\.txt is read as a text per line"):
        corpus({"a.txt": "one", **jsonl}, id="key")
    assert len(list(corpus({"a.txt": "one", **jsonl}, field="text"))) == 3


def test_the_fraction_follows_the_bytes(corpus: MakeCorpus) -> None:
    rows = corpus({"a.txt": "x\n" * 100_000, "b.txt.gz": gzip.compress(b"x\n" * 10)})
    assert rows.fraction() == 0
    iterator = iter(rows)
    for _ in range(50_000):
        next(iterator)
    assert rows.fraction() == pytest.approx(0.5, abs=0.05)
    assert len(list(iterator)) == 50_010
    assert rows.fraction() == 1


def test_without_pyarrow_the_install_line_is_told(
    corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("embedge.corpus.arrow.importlib.import_module", missing)
    for name in ("a.parquet", "a.arrow", "a.txt.zst"):
        with pytest.raises(OptionError, match=r'python -m pip install "embedge\[corpus\]"'):
            list(corpus({name: "x"}))


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
def test_reading_takes_no_memory_to_speak_of(corpus: MakeCorpus, tmp_path: Path, kind: str) -> None:
    texts = [f"text {i} " + "x" * 50 for i in range(50_000)]
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow", **PYARROW)
        parquet = pytest.importorskip("pyarrow.parquet", **PYARROW)
        parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "p")
        content = (tmp_path / "p").read_bytes()
    else:
        head = {"txt": "", "jsonl": "", "csv": "text\n"}[kind]
        lines = (f'{{"text": "{text}"}}' if kind == "jsonl" else text for text in texts)
        content = (head + "\n".join(lines)).encode()
    rows = corpus({f"a.{kind}": content})
    del content, texts
    tracemalloc.start()
    assert sum(1 for _ in rows) == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # of a file of 3 MB


def test_folders_are_read_in_the_same_order_everywhere(tmp_path: Path) -> None:
    """By the parts of a path, and with case: Windows compares paths without it."""
    names = ["B.txt", "a b.txt", "a.txt", "a/z.txt", "a-/x.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [source.path for source in find_sources([tmp_path])]
    order = ["B.txt", "a/z.txt", "a b.txt", "a-/x.txt", "a.txt"]
    assert [path.relative_to(tmp_path).as_posix() for path in found if path] == order
