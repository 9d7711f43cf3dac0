"""`embedge info --card`: exact pages, and files that would like to write more than their lines."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedge.cli.main import main
from embedge.modelfile.card import card
from embedge.modelfile.file import ModelFile, parse, read
from embedge.modelfile.settings import dumps

from . import tiny

Capture = pytest.CaptureFixture[str]
NASTY = "x|y\\|z```</td>\n\n# <script>[a](https://b) ![c](d) *e* &amp; \u202e\ud800"


def made(report: Any = None, path: str = "tiny.onnx", **changes: Any) -> ModelFile:
    """The tiny file with another report, at another path, or with other settings."""
    file = parse(tiny.model(), Path(path))
    report = file.report if report is None else report
    return replace(file, report=report, settings=replace(file.settings, **changes))


def rows(page: str) -> dict[str, str]:
    """The tables of a card as one, by the names in the first column."""
    cells = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    assert all(len(parts) == 4 for parts in cells)
    return {name.strip(): value.strip() for _, name, value, _ in cells}


def test_a_whole_card() -> None:
    file = made()
    assert (
        card(file)
        == f"""\
# tiny

A sentence transformer in one ONNX file, run by embedge: texts of up to 8 tokens
become vectors of 2 components.

| | |
|---|---|
| dim | 2 |
| max tokens | 8 |
| pooling | mean |
| normalized | to length 1 |
| quantization | fp32 |
| kept in higher precision | - |
| device | cpu |
| lowest onnxruntime | 1.17 |
| prompts | passage "b ", query "a " |
| default prompt | - |
| similarity | cosine |
| matryoshka dims | - |
| source: repository | none |
| license | Apache-2.0 |
| fingerprint | {file.fingerprint} |
| size | {file.size:,} bytes |

```python
from embedge import Encoder

encoder = Encoder('tiny.onnx')
query = encoder.encode_query("Who is eating?")
documents = encoder.encode_document(["A man is eating food.", "It rains."])
print(encoder.similarity(query, documents))
```

What its export measured:

| | |
|---|---|
| cosine | 1.0 |
| made with | - |
"""
    )


def test_what_was_overridden_and_measured() -> None:
    report = {
        "anisotropy": {"fp32": 0.0451, "int8": 0.0458},
        "fp32_against_source": {"cosine_mean": 1.0, "cosine_min": 0.999999},
        "overridden": {"pooling": "cls", "max_tokens": 512, "prompts": {"q": "find: "}, "new": 1},
        "probes": 7,
        "spearman": {"pairs": 3, "source": 86.72, "fp32": 86.72},
        "tools": {"embedge": "0.1.0", "torch": "2.13.0+cpu"},
    }
    file = made(report, normalized=False, matryoshka_dims=(1,), default_prompt="query")
    found = rows(card(file))
    for name, value in {
        "pooling": "mean (overridden: the model itself says cls)",
        "max tokens": "8 (overridden: the model itself says 512)",
        "prompts": 'passage "b ", query "a " (overridden: the model itself says q "find: ")',
        "new": "- (overridden: the model itself says 1)",
        "normalized": "no",
        "matryoshka dims": "1",
        "default prompt": "query",
        "mean cosine of unrelated texts": "fp32 0.0451, int8 0.0458",
        "fp32 against source": "cosine_mean 1.0, cosine_min 0.999999",
        "rank correlation with people's scores, x100": "pairs 3, source 86.72, fp32 86.72",
        "texts compared": "7",
        "made with": "embedge 0.1.0, torch 2.13.0+cpu",
    }.items():
        assert found.pop(name) == value
    assert "overridden" not in found
    assert "tools" not in found


@given(st.text())
@example(NASTY)
def test_nothing_that_a_file_says_leaves_its_line(text: str) -> None:
    """Text in every place where a file has some, against a file that has one letter there."""

    def page(text: str) -> str:
        named = ("name", "pooling", "quantization", "similarity", "license", "default_prompt")
        figures = {text + "!": text, "overridden": {"pooling": text}, "tools": {text: text}}
        own = {"prompts": {text: text}, "source": {text: text}, **dict.fromkeys(named, text)}
        return card(made(figures, f"{text}.onnx", **own))

    above, code, below = re.split("^```.*\n", page(text), flags=re.M)
    plain = page("x")
    assert page(text).count("\n") == plain.count("\n") == len(page(text).splitlines())
    assert page(text).count("\n| ") == plain.count("\n| ")
    assert above.count("|") + below.count("|") == plain.count("|")
    assert not set("`<>[]*\\~$@") & set(above + below)
    assert "://" not in above + below
    compile(code, "usage", "exec")


@pytest.mark.parametrize(
    "report",
    [
        {"overridden": "pooling", "tools": ["torch"]},
        {"overridden": None, "tools": 1, "spearman": None, "probes": {"a": [1, {"b": "c"}]}},
        {},
    ],
)
def test_a_report_may_hold_anything(report: dict[str, Any]) -> None:
    found = rows(card(made(report)))
    assert found["pooling"] == "mean"
    assert found["made with"] == "-"


@pytest.mark.parametrize("prompts", [{}, {"query": "a "}])
def test_the_example_runs(prompts: dict[str, str], tmp_path: Path) -> None:
    file = read(
        tiny.write(
            tmp_path / "it's.onnx", tiny.model(settings=replace(tiny.SETTINGS, prompts=prompts))
        )
    )
    code = card(file).split("```")[1].removeprefix("python")
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\[\[[-\d. ]+\]\]\n", result.stdout)


def test_the_command_prints_it(tiny_file: Path, capsys: Capture) -> None:
    assert main(["info", str(tiny_file), "--card"]) == 0
    assert capsys.readouterr() == (card(read(tiny_file)), "")
    assert main(["info", "--card", "--json"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_info_shows_what_was_overridden(tmp_path: Path, capsys: Capture) -> None:
    report = dumps({"overridden": {"pooling": "cls"}})
    path = tiny.write(tmp_path / "x.onnx", tiny.model(changed={"embedge.report": report}))
    assert main(["info", str(path)]) == 0
    assert re.search(r"^report\n  overridden\n    pooling +cls$", capsys.readouterr().out, re.M)
