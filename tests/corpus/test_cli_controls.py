"""Whatever texts, ids and names hold, nothing that the command prints controls a terminal."""

import json
import re
from pathlib import Path

import pytest

from embedge.cli import search
from embedge.cli.main import main

# Colors, a two-byte CSI, a bell, a title, carriage return, line separator, delete.
HOSTILE = "a \x1b[31mred \x9b32m\x07 \x1b]0;title\x07 b\rc\u2028d\x7f"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
OPTIONS = ("--threads", "1", "--quiet")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDGE_MODEL", str(model_file))
    rows = [json.dumps({"text": text, "key": text}) for text in (HOSTILE, "b", HOSTILE)]
    Path("a.jsonl").write_text("\n".join(rows), encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", HOSTILE, "a.jsonl", "--id", "key", "--explain", *OPTIONS],
        ["search", "--queries", "a.jsonl", "a.jsonl", *OPTIONS],
        ["duplicates", "a.jsonl", "--id", "key", *OPTIONS],
    ],
)
def test_texts_and_ids(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "\\x1b[31mred \\x9b32m\\x07" in out
    assert not CONTROLS.search(out)


def test_bold_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "can_style", lambda stream: True)
    assert main(["search", "b", "a.jsonl", "--explain", "--top", "2", *OPTIONS]) == 0
    out = capsys.readouterr().out
    assert "\x1b[1mb\x1b[22m" in out
    assert not CONTROLS.search(re.sub(r"\x1b\[(1|22)m", "", out))
    assert out.count("\n") == 4


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["embed", HOSTILE, "--json", "--threads", "1"], "text"),
        (["embed", "a.jsonl", "--id", "key", "--output", "-", *OPTIONS], "id"),
        (["search", "a", "a.jsonl", "--id", "key", "--json", *OPTIONS], "id"),
    ],
)
def test_json(arguments: list[str], key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert HOSTILE in [json.loads(line)[key] for line in out.splitlines()]
    assert not CONTROLS.search(out)


@pytest.mark.parametrize("name", ["\x1b[31m.txt", "two\nlines.txt", "\x9b.txt"])
def test_names_in_messages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["embed", name, "--output", "v.npy"],
        ["search", "a", name],
        ["embed", "a.jsonl", "--output", f"{name}.npy", "--field", name],
        ["verify", name],
    ):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("embedge: ")
        assert err.count("\n") == 1
        assert not CONTROLS.search(err)
    assert main(["embed", "a", f"--x{name}"]) == 2
    assert not CONTROLS.search(capsys.readouterr().err)
