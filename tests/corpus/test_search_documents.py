"""`embedge search --passages`, `--explain` and `--html`, in this process."""

import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from embedge import Encoder
from embedge.cli import explaining, search, terminal
from embedge.cli.main import main
from embedge.corpus import PassageOptions, RowOptions, embed_now, find_sources, search_documents
from embedge.corpus.inputs import Corpus
from embedge.explain import Share

pytestmark = pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")

TEXTS = ["a b c " * 9, "b b a", "c c a b " * 8, "a <b> & c"]
SPLIT = ["--passages", "--passage-tokens", "12"]


class Command:
    """Runs `embedge` in an empty folder."""

    def __init__(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._model, self._capsys = model, capsys

    def __call__(self, name: str, *arguments: str, status: int = 0) -> tuple[str, str]:
        options = ["--model", str(self._model), "--threads", "1", "--quiet"]
        assert main([name, *arguments, *options]) == status
        return self._capsys.readouterr()

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("search", *arguments, "--json")[0].splitlines()]

    def fails(self, *arguments: str) -> str:
        out, err = self("search", *arguments, status=2)
        assert out == ""
        return err


@pytest.fixture
def run(
    model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"text": text, "key": f"k{i}"}) for i, text in enumerate(TEXTS)]
    Path("d.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return Command(model_file, capsys)


def test_documents_with_their_best_passages(run: Command, encoder: Encoder) -> None:
    found = run.rows("c c", "d.jsonl", "--id", "key", *SPLIT)
    options = RowOptions(passages=PassageOptions(tokens=12, with_document=True))
    with embed_now(encoder, Corpus(find_sources([Path("d.jsonl")])), options) as vectors:
        (matches,) = search_documents(encoder.encode_query(["c c"]), vectors)
    assert len(found) == len(TEXTS)
    for row, match in zip(found, matches, strict=True):
        assert row["score"] == match.score == row["best_passage"] + row["document"]
        text = TEXTS[int(row["id"][1])]
        assert text[row["start"] : row["end"]] == row["text"]
        assert row["row"] == match.row
    out, err = run("search", "c c", "d.jsonl", "--id", "key", *SPLIT, "--top", "1")
    first = found[0]
    assert out == f"{first['score']:.4f}\t{first['id']}\t{' '.join(first['text'].split())}\n"
    assert err == "embedge: 2 texts were truncated to 16 tokens\n"  # two whole documents


def test_stored_passages(run: Command) -> None:
    now = run.rows("c c", "d.jsonl", "--id", "key", *SPLIT)
    stored = ["d.jsonl", "--id", "key", *SPLIT, "--with-text"]
    run("embed", *stored, "--with-document", "--output", "v.jsonl")
    assert run.rows("c c", "v.jsonl", "--passages") == now
    run("embed", *stored, "--output", "alone.jsonl")
    out, err = run("search", "c c", "alone.jsonl", "--passages", "--json")
    assert "ranked by their best passage only: there are no vectors of whole documents" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(row["document"] is None and row["score"] == row["best_passage"] for row in rows)
    assert {row["id"]: row["best_passage"] for row in rows} == {
        row["id"]: row["best_passage"] for row in now
    }


def test_what_does_not_fit_is_refused(run: Command) -> None:
    run("embed", "d.jsonl", "--output", "v.jsonl")
    assert "not those of passages; make them with" in run.fails("c", "v.jsonl", "--passages")
    message = run.fails("c", "v.jsonl", *SPLIT)
    assert "--passage-tokens says how texts are split, but v.jsonl holds vectors" in message
    assert "expected --passages together with --passage-tokens" in run.fails(
        "c", "d.jsonl", "--passage-tokens", "12"
    )
    assert "embedge embed --with-text" in run.fails("c", "v.jsonl", "--explain")
    assert "expected --html FILE together with --force" in run.fails("c", "d.jsonl", "--force")
    Path("page.html").write_text("mine", encoding="utf-8")
    assert "the file exists" in run.fails("c", "d.jsonl", "--html", "page.html")
    assert Path("page.html").read_text(encoding="utf-8") == "mine"
    assert "in a folder that exists" in run.fails("c", "d.jsonl", "--html", "none/page.html")


def test_the_words_that_carried_a_match(run: Command, encoder: Encoder) -> None:
    for row in run.rows("c b", "d.jsonl", "--explain"):
        expected = encoder.explain("c b", row["text"])
        assert row["explained"] == pytest.approx(row["score"], abs=1e-5)
        words = [word for word in expected.words if word.text]
        assert [word["share"] for word in row["words"]] == [word.share for word in words]
        assert all(row["text"][w["start"] : w["end"]] == w["text"] for w in row["words"])
    out, _ = run("search", "c b", "d.jsonl", "--explain", "--top", "1")
    match, words = out.splitlines()
    assert re.fullmatch(r"-?\d\.\d{4}\t\d\t[^\x1b]+", match)
    assert re.fullmatch(r"\t(\S+ \d\.\d{3}, )*\S+ \d\.\d{3}", words)


def test_vectors_made_otherwise_are_said_to_be(run: Command) -> None:
    common = ["d.jsonl", *SPLIT, "--with-text", "--output"]
    run("embed", *common, "alone.jsonl")
    assert "another cosine" not in run("search", "c", "alone.jsonl", "--explain")[1]
    run("embed", *common, "context.jsonl", "--context")
    assert "add up to another cosine" in run("search", "c", "context.jsonl", "--explain")[1]


def test_bold_on_a_terminal(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "can_style", lambda stream: True)
    out, _ = run("search", "b", "d.jsonl", "--explain", "--top", "1")
    assert "\x1b[1m" in out
    plain, _ = run("search", "b", "d.jsonl", "--explain", "--top", "1", "--json")
    assert "\\u001b" not in plain


def test_bold_are_those_with_half_of_the_largest_share() -> None:
    words = [Share("one", 0, 3, 0.1), Share("two", 5, 8, 0.2), Share("six", 9, 12, -0.3)]
    assert explaining.bold_words("one, two six.", words) == (
        "\x1b[1mone\x1b[22m, \x1b[1mtwo\x1b[22m six."
    )
    assert explaining.bold_words("six", [Share("six", 0, 3, -0.3)]) == "six"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_where_text_may_be_bold(
    stream: io.StringIO,
    environment: dict[str, str],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terminal, "_understands_escapes", lambda: True)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal.can_style(stream) is expected


def test_a_page_that_needs_nothing_else(run: Command) -> None:
    query = 'a <script>alert("b")</script>'
    run("search", query, "d.jsonl", "--html", "page.html", *SPLIT)
    page = Path("page.html").read_text(encoding="utf-8")
    assert html.escape(query) in page
    assert "<script" not in page
    assert not re.findall(r"(?:src|href|url)\s*[=(]", page)
    body = page[page.index("<body>") :]
    texts = re.findall(r'<div class="text">(.*?)</div>', body, re.S)
    shown = [html.unescape(re.sub(r"</?mark[^>]*>", "", text)) for text in texts]
    assert shown == [row["text"] for row in run.rows(query, "d.jsonl", *SPLIT)]
    assert "a <b> & c" in shown
    assert "color-scheme: light dark" in page
    run("search", "b", "d.jsonl", "--html", "page.html", "--force")
    assert "alert" not in Path("page.html").read_text(encoding="utf-8")
