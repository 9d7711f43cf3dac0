import json
from pathlib import Path

import numpy as np
import pytest

from embedge import CorpusError
from embedge.corpus.inputs import Corpus, find_sources

from .conftest import MakeCorpus, bad, good


def test_txt_is_a_text_a_line(corpus: MakeCorpus) -> None:
    rows = list(corpus({"a.txt": "\ufeffone\r\n\ntwo \n\u2028three"}))
    assert good(rows) == [
        (None, "one", 1),
        (None, "", 2),
        (None, "two ", 3),
        (None, "\u2028three", 4),
    ]


def test_txt_that_is_not_utf8(corpus: MakeCorpus) -> None:
    rows = list(corpus({"a.txt": b"one\nt\xffo\nthree\n"}))
    assert bad(rows) == [(2, "not valid UTF-8 (byte 0xff at 1)")]
    assert rows[1].raw == "t\\xffo"
    assert [row.line for row in rows] == [1, 2, 3]


def test_jsonl(corpus: MakeCorpus) -> None:
    lines = '\ufeff{"text": "one", "key": 7}\n\n{"key": "é", "text": "two\\nlines"}\r\n   \n'
    assert good(list(corpus({"a.jsonl": lines}, id="key"))) == [
        (7, "one", 1),
        ("é", "two\nlines", 3),
    ]
    assert good(list(corpus({"a.ndjson": '{"body": "b"}'}, field="body"))) == [(None, "b", 1)]


NOT_AN_ID = "expected the id 'id' to be a string or an integer"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "not valid JSON (Expecting ',' delimiter: line 1 column 13 (char 12))"),
        (b'["a"]', "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b"{}", "there is no field 'text' (fields: none)"),
        (b'{"x": 1, "y": 2}', "there is no field 'text' (fields: 'x', 'y')"),
        (b'{"text": null, "id": 1}', "expected the field 'text' to be a string, got null"),
        (b'{"text": 1.5, "id": 1}', "expected the field 'text' to be a string, got 1.5"),
        (b'{"text": ["a"], "id": 1}', "expected the field 'text' to be a string, got a list"),
        (b'{"text": {}, "id": 1}', "expected the field 'text' to be a string, got an object"),
        (b'{"text": "\\ud800", "id": 1}', "'text' is not valid Unicode (lone surrogate U+D800)"),
        (b'{"text": "\xe9", "id": 1}', "not valid UTF-8 (byte 0xe9 at 10)"),
        (b'{"text": "a"}', "there is no field 'id' (fields: 'text')"),
        (b'{"text": "a", "id": null}', f"{NOT_AN_ID}, got null"),
        (b'{"text": "a", "id": true}', f"{NOT_AN_ID}, got true"),
        (b'{"text": "a", "id": 1.0}', f"{NOT_AN_ID}, got 1.0"),
    ],
)
def test_bad_json_lines(corpus: MakeCorpus, line: bytes, reason: str) -> None:
    rows = list(corpus({"a.jsonl": b'{"text": "a", "id": 1}\n' + line}, id="id"))
    assert bad(rows) == [(2, reason)]
    assert rows[1].raw == line.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"text": ' + "9" * 5000 + "}"])
def test_hostile_json_is_a_bad_row(corpus: MakeCorpus, line: str) -> None:
    ((number, reason),) = bad(list(corpus({"a.jsonl": line})))
    assert number == 1
    assert reason.startswith("not valid JSON (")


def test_csv(corpus: MakeCorpus) -> None:
    table = '\ufeffid,text\r\n1,"a, ""b"""\r\n\r\n2,"two\nlines"\r\n3,é\r\n'
    assert good(list(corpus({"a.csv": table}, id="id"))) == [
        ("1", 'a, "b"', 2),
        ("2", "two\nlines", 4),
        ("3", "é", 6),
    ]


def test_csv_with_a_very_long_value(corpus: MakeCorpus) -> None:
    assert good(list(corpus({"a.csv": "text\n" + "x" * 200_000}))) == [(None, "x" * 200_000, 2)]


def test_tsv_knows_no_quotes(corpus: MakeCorpus) -> None:
    table = 'score\ttext\n1\t"a\n2\tb "c" d\n'
    assert good(list(corpus({"a.tsv": table}))) == [(None, '"a', 2), (None, 'b "c" d', 3)]


def test_bad_csv_rows(corpus: MakeCorpus) -> None:
    rows = list(corpus({"a.csv": b'id,text\n1\n2,b\xff\n3,c\n4,"d'}, id="id"))
    assert bad(rows) == [
        (2, "there is no field 'text' (fields: 'id')"),
        (3, "'text' is not valid UTF-8 (byte 0xff)"),
        (5, "not valid CSV (unexpected end of data)"),
    ]
    assert good(rows[2:3]) == [("3", "c", 4)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_missing_column_is_told_at_once(corpus: MakeCorpus, name: str) -> None:
    with pytest.raises(CorpusError, match=r"a\.[ct]sv: there is no column 'body'.*--column: 'x'"):
        list(corpus({name: "x\n1\n"}, field="body"))
    with pytest.raises(CorpusError, match=r"no column 'key'; name one with --id: 'text'"):
        list(corpus({name: "text\n1\n"}, id="key"))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_parquet_and_arrow(corpus: MakeCorpus, tmp_path: Path, kind: str) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    text = arrow.array([b"one", None, b"thr\xff", b"four"], arrow.binary())
    text = arrow.Array.from_buffers(arrow.string(), 4, text.buffers())
    write(tmp_path / f"a.{kind}", arrow.table({"id": [1, 2, 3, 4], "text": text, "x": [0] * 4}))
    rows = list(corpus({f"a.{kind}": (tmp_path / f"a.{kind}").read_bytes()}, id="id"))
    assert good([rows[0], rows[3]]) == [(1, "one", 1), (4, "four", 4)]
    assert bad(rows) == [
        (2, "expected the field 'text' to be a string, got null"),
        (3, "expected the field 'text' to be a string, got binary"),
    ]
    assert rows[2].raw == {"id": 3, "text": b"thr\xff"}


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damaged_parquet_and_arrow(corpus: MakeCorpus, tmp_path: Path, kind: str) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    with pytest.raises(CorpusError, match=rf"a\.{kind}: not a whole {kind} file"):
        list(corpus({f"a.{kind}": b"PAR1 nothing of use"}))
    write(tmp_path / f"b.{kind}", arrow.table({"body": ["a"]}))
    with pytest.raises(CorpusError, match=r"there is no column 'text'; .*: 'body'"):
        list(corpus({f"b.{kind}": (tmp_path / f"b.{kind}").read_bytes()}))


def write(path: Path, table: object) -> None:
    import pyarrow.ipc
    import pyarrow.parquet

    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_file(path, table.schema) as writer:  # type: ignore[attr-defined]
            writer.write_table(table)


def test_many_rows_keep_their_order(corpus: MakeCorpus) -> None:
    lines = "".join(json.dumps({"text": str(i)}) + "\n" for i in range(5000))
    assert [text for _, text, _ in good(list(corpus({"a.jsonl": lines})))] == [
        str(i) for i in range(5000)
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_other_encodings_are_named(corpus: MakeCorpus, kind: str, encoding: str) -> None:
    content = 'text\n{"text": "one"}\n'.encode(encoding)
    with pytest.raises(CorpusError, match=rf"a\.{kind}: expected UTF-8, got UTF-16 or UTF-32"):
        list(corpus({f"a.{kind}": content}))


def test_two_columns_of_one_name(corpus: MakeCorpus) -> None:
    with pytest.raises(CorpusError, match=r"a\.csv: 2 columns are named 'text'; rename one"):
        list(corpus({"a.csv": "text,text\na,b\n"}))
    assert good(list(corpus({"a.csv": "x,text,x\n1,a,2\n"}))) == [(None, "a", 2)]


def test_a_row_of_too_many_values_is_bad(corpus: MakeCorpus) -> None:
    rows = list(corpus({"a.csv": "text,x\na, b,c\nd,e\n"}))
    assert bad(rows) == [(2, "expected 2 values as in the header, got 3")]


def test_the_stream_format_of_arrow(corpus: MakeCorpus, tmp_path: Path) -> None:
    """What the datasets library writes."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    table = pyarrow.table({"text": ["one", "two"], "x": [1, 2]})
    with pyarrow.ipc.new_stream(str(tmp_path / "s"), table.schema) as writer:
        writer.write_table(table)
    data = (tmp_path / "s").read_bytes()
    assert good(list(corpus({"a.arrow": data}))) == [(None, "one", 1), (None, "two", 2)]
    with pytest.raises(CorpusError, match=r"a\.arrow: not a whole arrow file"):
        list(corpus({"a.arrow": data[:-60]}))


@pytest.mark.parametrize("offsets", [[0, 2**30, 2], [0, -5, 2], [0, 2, 1]])
def test_values_outside_of_an_arrow_file_are_not_read(tmp_path: Path, offsets: list[int]) -> None:
    """Reading them ends the process, or shows what else is in its memory."""
    arrow = pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    ends = arrow.py_buffer(np.array(offsets, np.int32).tobytes())
    for kind in (arrow.string(), arrow.list_(arrow.int8())):
        data = arrow.py_buffer(b"ab")
        if kind == arrow.string():
            values = arrow.Array.from_buffers(kind, 2, [None, ends, data])
        else:
            child = arrow.array([1, 2], arrow.int8())
            values = arrow.Array.from_buffers(kind, 2, [None, ends], children=[child])
        table = arrow.RecordBatch.from_arrays([arrow.array(["a", "b"]), values], ["text", "k"])
        with arrow.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
            writer.write_batch(table)
        made = Corpus(find_sources([tmp_path / "a.arrow"]), keep=["k"])
        with pytest.raises(CorpusError, match=r"a\.arrow: not a whole arrow file \("):
            list(made)
