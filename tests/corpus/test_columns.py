"""Values that are kept: as they were in every form of output, or a bad row."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from embedge import Encoder
from embedge.cli.main import main
from embedge.corpus import embed_lines
from embedge.corpus.columns import column_types, convert, why_not_kept
from embedge.corpus.inputs import Corpus, find_sources
from embedge.corpus.output import OUTPUT_SUFFIXES

from .conftest import MakeCorpus, bad, embed_corpus

NESTED = '{"text": "a", "k": ' + '{"x": [' * 51 + "]}" * 51 + "}"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"text": "a", "k": "\\ud800"}', "not valid Unicode (lone surrogate U+D800)"),
        ("a.jsonl", b'{"text": "a", "k": [{"x": "\\udfff"}]}', "lone surrogate U+DFFF"),
        ("a.jsonl", b'{"text": "a", "k": {"\\ud800": 1}}', "lone surrogate U+D800"),
        ("a.csv", b"text,k\na,\xff\n", "is not valid UTF-8 (byte 0xff)"),
        ("a.jsonl", NESTED.encode(), "nested more than 100 levels deep"),
    ],
)
def test_a_value_that_cannot_be_kept_is_a_bad_row(
    corpus: MakeCorpus, name: str, content: bytes, reason: str
) -> None:
    ((_, found),) = bad(list(corpus({name: content}, keep=["k"])))
    assert reason in found
    assert bad(list(corpus({name: content}))) == []


def test_values_of_arrow_that_python_does_not_have(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    import pyarrow.parquet

    not_utf8 = arrow.Array.from_buffers(arrow.string(), 2, arrow.array([b"\xff", b"y"]).buffers())
    columns = {
        "text": arrow.array(["a", "b"]),
        "far": arrow.array([2**30, 1], arrow.date32()),
        "zone": arrow.array([None, 1], arrow.timestamp("us", "No/Where")),
        "binary": arrow.array([b"\x00", None]),
        "not_utf8": not_utf8,
        "inner": arrow.StructArray.from_arrays([not_utf8], ["x"]),
    }
    pyarrow.parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    reasons = {
        "far": (1, "cannot be read (days=1073741824; must have magnitude"),
        "zone": (2, "cannot be read ("),
        "binary": (1, "is binary or not valid UTF-8"),
        "not_utf8": (1, "is binary or not valid UTF-8"),
        "inner": (1, "cannot be read ('utf-8' codec can't decode byte 0xff"),
    }
    for name, (line, reason) in reasons.items():
        rows = list(Corpus(find_sources([tmp_path / "a.parquet"]), keep=[name]))
        assert len(rows) == 2
        ((number, found),) = bad(rows)
        assert (number, f"{name!r} {reason}" in found) == (line, True)


@pytest.mark.parametrize("suffix", [s for s in OUTPUT_SUFFIXES if s != ".npy"])
def test_numbers_that_are_not_finite(
    corpus: MakeCorpus, encoder: Encoder, tmp_path: Path, suffix: str
) -> None:
    lines = '{"text": "a", "k": NaN, "l": [1, -Infinity]}\n{"text": "b", "k": 0.5, "l": [2]}'
    output = tmp_path / f"v{suffix}"
    made = corpus({"a.jsonl": lines}, keep=["k", "l"])
    if suffix != ".jsonl":
        read: Any = pytest.importorskip(
            "pyarrow.feather" if suffix == ".arrow" else "pyarrow.parquet",
            reason="needs pip install 'embedge[corpus]'",
        )
        embed_corpus(encoder, made, output)
        table = read.read_table(output)
        assert str(table["k"].to_pylist()) == "[nan, 0.5]"
        assert table["l"].to_pylist() == ["[1, null]", "[2]"]
        return
    embed_corpus(encoder, made, output)
    again = corpus({"a.jsonl": lines}, keep=["k", "l"])
    for data in (output.read_bytes().splitlines(), embed_lines(encoder, again)):
        rows = [json.loads(line, parse_constant=pytest.fail) for line in data]
        assert [(row["k"], row["l"]) for row in rows] == [(None, [1, None]), (0.5, [2])]


def test_types_hold_every_value() -> None:
    columns: dict[str, tuple[str, list[Any], list[Any]]] = {
        "exact": ("double", [2**53, 0.5], [2.0**53, 0.5]),
        "rounded": ("json", [2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        "whole": ("int64", [2**53 + 1, 1], [2**53 + 1, 1]),
        "large": ("json", [2**63, 1], [str(2**63), "1"]),
        "nothing": ("null", [None, None], [None, None]),
        "yes": ("json", [True, 1], ["true", "1"]),
        "day": ("json", [date(2024, 1, 2), None], ['"2024-01-02"', None]),
    }
    rows = [{name: values[i] for name, (_, values, _) in columns.items()} for i in range(2)]
    types = column_types(rows, list(columns))
    for name, (kind, values, expected) in columns.items():
        assert (name, types[name]) == (name, kind)
        assert convert([{name: value} for value in values], name, types[name]) == expected
        assert [why_not_kept(value) for value in values] == ["", ""]


@pytest.mark.parametrize("output", ["v.jsonl", "-"])
def test_a_field_that_no_row_has_is_named(
    output: str,
    tmp_path: Path,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "a"}\n{"text": "b", "title": "t"}')
    options = ["-o", output, "--quiet", "--model", str(model_file)]
    assert main(["embed", "a.jsonl", "--keep", "title", "titel", *options]) == 0
    assert capsys.readouterr().err == (
        "embedge: no row has the field 'titel' that --keep names, so nothing was kept of it\n"
    )
