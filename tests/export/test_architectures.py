"""One architecture of each kind, exported and compared with PyTorch.

`scripts/check_architectures` does the same for every row of the table.
"""

import re
from pathlib import Path

import pytest

from embedge.errors import ExportError
from embedge_export import export

from .architectures import ARCHITECTURES, ROOT, TOKENIZERS, Architecture, build, texts, verify


@pytest.mark.parametrize(
    "row",
    [row for row in ARCHITECTURES if not row.why_not and not row.like],
    ids=lambda row: row.name,
)
def test_what_works(row: Architecture, tmp_path: Path) -> None:
    if row.missing:
        pytest.skip(row.missing)
    assert verify(row, tmp_path).shortcomings(row.padding) == []


def test_every_other_row_is_like_one_that_is_exported() -> None:
    exported = {row.name for row in ARCHITECTURES if not row.why_not and not row.like}
    assert {row.like for row in ARCHITECTURES if row.like} <= exported


@pytest.mark.parametrize(
    "row", [row for row in ARCHITECTURES if row.why_not], ids=lambda row: row.name
)
def test_what_does_not_work_is_refused(row: Architecture, tmp_path: Path) -> None:
    folder = build(row, tmp_path / "made")
    with pytest.raises(ExportError, match=r"^(trace|verify): "):
        export(folder, tmp_path / "model.onnx", format="fp32")
    assert not (tmp_path / "model.onnx").exists()


def test_the_texts_are_of_mixed_length() -> None:
    lengths = sorted(len(text.split()) for text in texts())
    assert lengths[0] == 0
    assert lengths[20] < 8 < 40 < lengths[-5]


def test_every_kind_of_tokenizer_is_there() -> None:
    assert {row.tokenizer[0] for row in ARCHITECTURES} == set(TOKENIZERS)


@pytest.mark.parametrize("major", ["4", "5"])
def test_the_tables_of_both_stacks_list_them_all(major: str) -> None:
    """scripts/check_architectures --write docs/models.md writes the one of the stack it runs on."""
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = re.search(
        rf"<!-- architectures, transformers {major} -->\n(.*?)<!-- /architectures -->", text, re.S
    )
    assert table is not None, f"docs/models.md has no table of transformers {major}"
    rows = [line for line in table[1].splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == [row.name for row in ARCHITECTURES]
    assert not [row for row in rows if "fails: " in row or "does not work" in row]
