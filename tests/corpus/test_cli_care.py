"""Nothing is left out, overwritten or blamed on something else without a word."""

import io
import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from embedge import Encoder
from embedge.cli.main import main
from embedge.corpus import files, inputs, open_vectors

OPTIONS = ("--threads", "1", "--quiet")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDGE_MODEL", str(model_file))
    Path("a.txt").write_text("a b\nc\n")


def fails(capsys: Capture, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def link(name: str, to: str) -> None:
    try:
        Path(name).symlink_to(to, target_is_directory=Path(name).parent.joinpath(to).is_dir())
    except OSError:
        pytest.skip("this user may make no links; Windows needs its developer mode for them")
    if not Path(name).is_symlink():
        pytest.skip("Wine does not show links as links; run this test on Windows itself")


def test_a_broken_link_in_a_folder(capsys: Capture) -> None:
    Path("d").mkdir()
    Path("d/a.txt").write_text("a")
    link("d/b.txt", "nowhere.txt")
    err = fails(capsys, "embed", "d", "-o", "v.npy", *OPTIONS)
    assert err == f"embedge: {Path('d/b.txt')}: a broken link, a pipe or a device; take it away\n"


@pytest.mark.filterwarnings("default:links to folders")
def test_links_to_folders_are_named(capsys: Capture) -> None:
    Path("d").mkdir()
    Path("d/a.txt").write_text("a")
    Path("other").mkdir()
    link("d/up", "..")
    link("d/other", "../other")
    assert main(["embed", "d", "-o", "v.npy", *OPTIONS]) == 0
    assert capsys.readouterr().err == (
        "embedge: links to folders are not followed, d has other, up: to read them, give them by "
        "their names\n"
    )
    with open_vectors(Path("v.npy")) as vectors:
        assert len(vectors) == 1


@pytest.mark.filterwarnings("default:vectors that embedge")
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_earlier_vectors_in_a_folder_are_no_texts(capsys: Capture, kind: str) -> None:
    if kind != "jsonl":
        pytest.importorskip("pyarrow", reason="needs pip install 'embedge[corpus]'")
    Path("d").mkdir()
    Path("d/a.jsonl").write_text('{"text": "a b"}\n')
    Path("d/a.jsonl.json").write_text("{}")  # of somebody else
    earlier = Path("d") / f"v.{kind}"
    assert main(["embed", "d/a.jsonl", "--with-text", "-o", str(earlier), *OPTIONS]) == 0
    assert main(["embed", "d", "-o", "v.npy", *OPTIONS]) == 0
    assert capsys.readouterr().err == (
        f"embedge: vectors that embedge has written are not read, d has {earlier}: to read the "
        "texts in them, give them by their names\n"
    )
    with open_vectors(Path("v.npy")) as vectors:
        assert len(vectors) == 1


@pytest.mark.filterwarnings("default:links to folders")
def test_a_junction_is_a_link(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("d/up").mkdir(parents=True)
    for name in ("d/a.txt", "d/up/b.txt"):
        Path(name).write_text("a")
    if sys.platform == "win32":
        import _winapi

        try:
            _winapi.CreateJunction(str(Path("d").absolute()), str(Path("d/down").absolute()))
        except OSError:
            pass  # Wine has none
        else:
            assert files.is_link(Path("d/down"))
            Path("d/down").rmdir()
    monkeypatch.setattr(inputs, "is_link", lambda folder: folder.name == "up")
    assert main(["embed", "d", "-o", "v.npy", *OPTIONS]) == 0
    assert "links to folders are not followed, d has up: " in capsys.readouterr().err
    with open_vectors(Path("v.npy")) as vectors:
        assert len(vectors) == 1


@pytest.mark.skipif(sys.platform != "win32", reason="no such names elsewhere")
@pytest.mark.parametrize("name", ["a.txt:b.npy", "v?.npy", "v|.npy", "Nul.npy", "com1 .x.npy"])
def test_names_that_windows_does_not_allow(capsys: Capture, name: str) -> None:
    err = fails(capsys, "embed", "a.txt", "-o", name, *OPTIONS)
    assert f"--output {name} cannot be written: no file can have " in err
    page = str(Path(name).with_suffix(".html"))
    err = fails(capsys, "search", "a", "a.txt", "--html", page, *OPTIONS)
    assert f"--html {page}: no file can have " in err
    assert list(map(str, Path().iterdir())) == ["a.txt"]


@pytest.mark.skipif(sys.platform != "win32", reason="other systems replace read-only files")
def test_what_windows_cannot_replace_is_named_and_nothing_is_left(capsys: Capture) -> None:
    embed = ("embed", "a.txt", "-o", "v.npy", "--force", *OPTIONS)
    page = ("search", "a", "a.txt", "--html", "x.html", "--force", *OPTIONS)
    assert main(list(embed)) == main(list(page)) == 0
    capsys.readouterr()
    before = sorted(Path().iterdir())
    for name, command in (("v.npy", embed), ("v.npy.json", embed), ("x.html", page)):
        Path(name).chmod(stat.S_IREAD)
        assert f"{name}: the file is read-only; make it writable" in fails(capsys, *command)
        assert sorted(Path().iterdir()) == before
        Path(name).chmod(stat.S_IREAD | stat.S_IWRITE)
    for name, command in (("v.npy", embed), ("x.html", page)):
        with Path(name).open("rb"):
            assert main(list(command)) == 2
        assert "is it open in another program, or read-only?" in capsys.readouterr().err
        assert not Path(f".{name}.new").exists()
        assert main(list(command)) == 0
        capsys.readouterr()
        assert sorted(Path().iterdir()) == before


def test_what_cannot_be_explained_is_refused_before_the_search(
    capsys: Capture, tmp_path: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["embed", "a.txt", "-o", "v.npy", *OPTIONS]) == 0
    other = replace(tiny.SETTINGS, pooling="cls")
    model = tiny.write(tmp_path / "cls.onnx", tiny.model(settings=other))
    for method in ("encode_query", "encode_document"):
        monkeypatch.setattr(Encoder, method, None)  # nothing may be encoded
    for option in (["--explain"], ["--html", "x.html"]):
        err = fails(capsys, "search", "a", "v.npy", *option, *OPTIONS)
        assert "need the texts, and the vectors were stored without them" in err
        err = fails(capsys, "search", "a", "a.txt", "--model", str(model), *option, *OPTIONS)
        assert "tiny pools by 'cls', where a token has no share" in err


def test_a_folder_that_cannot_be_listed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("d/closed").mkdir(parents=True)
    Path("d/a.txt").write_text("a")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    err = fails(capsys, "embed", "d", "-o", "v.npy", *OPTIONS)
    assert "closed: the folder cannot be read (Permission denied)" in err


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_an_empty_compressed_file_is_no_empty_corpus(capsys: Capture, kind: str) -> None:
    Path(f"a.txt.{kind}").touch()
    err = fails(capsys, "embed", f"a.txt.{kind}", "-o", "v.npy", *OPTIONS)
    assert f"a.txt.{kind}: cannot be read to its end (an empty file, expected" in err


@pytest.mark.parametrize(
    "arguments", [["embed", "-", "-", "-o", "v.npy"], ["search", "--queries", "-", "-"]]
)
def test_standard_input_is_read_once(capsys: Capture, arguments: list[str]) -> None:
    assert "can be read only once" in fails(capsys, *arguments, *OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "a", "a.txt", "--top", "0"], "expected a top of 1 or more, got 0"),
        (["duplicates", "a.txt", "--threshold", "95"], "for 95 percent give 0.95"),
        (["search", "a", "a.txt", "--html", "a.txt", "--force"], "a name that ends in .html or"),
    ],
)
def test_refused_before_anything_is_encoded(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr("embedge.cli.reading.embed_now", pytest.fail)
    assert message in fails(capsys, *arguments, *OPTIONS)
    assert Path("a.txt").read_text() == "a b\nc\n"


def test_a_link_to_a_page_is_no_way_to_overwrite_other_files(capsys: Capture) -> None:
    link("page.html", "a.txt")
    err = fails(capsys, "search", "a", "a.txt", "--html", "page.html", "--force", *OPTIONS)
    assert "a name that ends in .html or" in err


def test_a_page_is_written_whole_or_not_at_all(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("page.html").write_text("before")
    arguments = ["search", "a", "a.txt", "--html", "page.html", "--force", *OPTIONS]
    with monkeypatch.context() as patch:

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device", "page.html")

        patch.setattr("embedge.corpus.files.sync", full)
        assert main(arguments) == 2
    assert Path("page.html").read_text() == "before"
    assert sorted(path.name for path in Path().iterdir()) == ["a.txt", "page.html"]
    assert main(arguments) == 0
    assert Path("page.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("name", ["v.npy", "v.npy.json", "v.npy.ids"])
def test_a_link_to_nothing_is_not_overwritten(capsys: Capture, name: str) -> None:
    link(name, name)
    err = fails(capsys, "embed", "a.txt", "-o", "v.npy", *OPTIONS)
    assert f"{name}: the file exists and is not this job's" in err


def test_queries_from_standard_input(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"c\na b\n")))
    assert main(["search", "--queries", "-", "a.txt", "--top", "1", "--json", *OPTIONS]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["query"] for row in rows] == ["c", "a b"]


def test_no_queries_are_said_to_be_none(capsys: Capture) -> None:
    Path("q.txt").touch()
    assert main(["search", "--queries", "q.txt", "a.txt", *OPTIONS]) == 0
    assert capsys.readouterr() == (
        "",
        "embedge: there is nothing to search for: q.txt has no rows\n",
    )


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["search", "a " * 50, "a.txt"], 1),
        (["search", "a", "long.txt"], 2),
        (["duplicates", "long.txt"], 2),
    ],
)
@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_truncated_texts_are_counted(capsys: Capture, arguments: list[str], count: int) -> None:
    Path("long.txt").write_text("a " * 50 + "\n" + "b " * 50 + "\nc")
    assert main([*arguments, *OPTIONS]) == 0
    assert f"embedge: {count} texts were truncated to 16 tokens\n" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows does not delete the current folder")
def test_the_current_folder_is_gone(capsys: Capture, tmp_path: Path) -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    err = fails(capsys, "embed", str(tmp_path / "a.txt"), "-o", "v.npy", *OPTIONS)
    assert err == "embedge: the current folder is not there any more; change to another\n"


def test_vectors_that_are_not_there(capsys: Capture) -> None:
    assert fails(capsys, "verify", "v.npy") == "embedge: v.npy: there is no such file\n"


def test_blank_lines_before_a_header(capsys: Capture) -> None:
    Path("a.csv").write_text("\n\ntext\na\n")
    assert main(["search", "a", "a.csv", "--json", *OPTIONS]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "a"
