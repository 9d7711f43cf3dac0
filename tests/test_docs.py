"""README and docs: their examples are run, their links lead somewhere.

A block of ```console holds lines of `$ command` with what they print, a ```python block is a
program, and a ```text block right behind it is its output. The blocks of a page run in order, in
one folder. On the line before a block, `<!-- not run: REASON -->` exempts it, and
`<!-- needs: MODULE, MODULE:NAME -->` does where these are not there: scripts/test-integrations runs
it.
"""

import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedge.modelfile.default import default_model, read_default

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/embedge/embedge/blob/main/"
RAW = "https://raw.githubusercontent.com/embedge/embedge/main/"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n\n?)?^```(?P<kind>\w+)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.M | re.S,
)
NUMBER = re.compile(r"-?\d+\.\d+")
# What an optional dependency of an example is called where it is missing.
EXTRAS = {"embedge_export": "torch", "pyarrow": "pyarrow", "starlette": "starlette"}


@dataclass(frozen=True)
class Block:
    """A block of code: its page's line, its kind, its code, and the output that it shows."""

    line: int
    kind: str
    code: str
    output: str | None
    needs: str | None = None

    def is_runnable(self) -> bool:
        """Whether the modules that the block needs, if any, are installed, and have their names."""
        return all(map(is_there, self.needs.split(", "))) if self.needs else True


def is_there(name: str) -> bool:
    """Whether there is a MODULE, which is not imported, or a MODULE:NAME."""
    try:
        if ":" in name:
            return pkgutil.resolve_name(name) is not None
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, AttributeError):
        return False


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        note = found["note"] or ""
        if found["kind"] not in ("console", "python"):
            continue
        if note.startswith("not run"):
            assert re.fullmatch(r"not run: .{10,}", note), f"{page.name}: {note}: why not?"
            continue
        line = text.count("\n", 0, found.start("code")) + 1
        needs = note.removeprefix("needs: ") if note.startswith("needs: ") else None
        yield Block(line, found["kind"], found["code"], found["output"], needs)


def close(got: str, expected: str) -> bool:
    """Equal but for the last digits of numbers, which may differ between CPU families."""
    if NUMBER.sub("#", got).split() != NUMBER.sub("#", expected).split():
        return False
    pairs = zip(NUMBER.findall(got), NUMBER.findall(expected), strict=True)
    return all(abs(float(a) - float(b)) <= 0.002 for a, b in pairs)


def run(command: str | list[str], folder: Path) -> str:
    environment = {**os.environ, "COLUMNS": "80", "PYTHONUTF8": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        shell=isinstance(command, str),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert result.returncode == 0, f"{command}: {result.stderr}"
    return result.stdout


def check_console(block: Block, folder: Path) -> None:
    for example in re.split(r"^\$ ", block.code, flags=re.M)[1:]:
        command, _, expected = example.partition("\n")
        printed = run(command, folder).splitlines()
        for line in expected.rstrip("\n").splitlines():
            if line == "...":  # the rest is left out
                break
            got = printed.pop(0) if printed else "(nothing)"
            if line.endswith(" ..."):
                line = line.removesuffix(" ...")
                got = " ".join(got.split()[: len(line.split())])
            assert close(got, line), f"line {block.line}: {command!r} printed {got!r}, not {line!r}"


def check_python(block: Block, folder: Path) -> None:
    program = folder / "example.py"
    program.write_text(block.code, encoding="utf-8")
    printed = run([sys.executable, str(program)], folder)
    if block.output is not None:
        assert close(printed, block.output), f"line {block.line} printed {printed!r}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the pages' examples may use: a model file, some lines of text, the recipes."""
    (tmp_path / "model.onnx").write_bytes(default_model().read_bytes())
    (tmp_path / "sentences.txt").write_text("A man is eating food.\nSomeone is having a meal.\n")
    (tmp_path / "models").symlink_to(ROOT / "models", target_is_directory=True)
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="a symlink needs a privilege on Windows")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples_run_and_print_what_they_show(page: Path, folder: Path) -> None:
    missing = []
    for block in blocks(page):
        if not block.is_runnable():
            missing.append(str(block.needs))
            continue
        for name, library in EXTRAS.items():
            if name in block.code:
                pytest.importorskip(library, reason=f"the page needs the extra that has {library}")
        (check_console if block.kind == "console" else check_python)(block, folder)
    if missing:
        pytest.skip(
            f"all ran but what needs {', '.join(missing)}: python scripts/test-integrations"
        )


def test_the_parser_of_pages_finds_blocks_and_outputs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ a\nb\n```\n\n<!-- not run: it needs a GPU -->\n```python\nx\n```\n\n"
        "```python\nprint(1)\n```\n\n```text\n1\n```\n\n```json\n{}\n```\n\n"
        "<!-- needs: no.such -->\n```python\nx\n```\n"
    )
    assert list(blocks(page)) == [
        Block(2, "console", "$ a\nb\n", None),
        Block(12, "python", "print(1)\n", "1\n"),
        Block(25, "python", "x\n", None, "no.such"),
    ]
    assert [block.is_runnable() for block in blocks(page)] == [True, True, False]
    assert is_there("sqlite3:connect")
    assert not is_there("sqlite3:no_such")
    page.write_text("<!-- not run: slow -->\n```python\nx\n```\n")
    with pytest.raises(AssertionError, match="why not"):
        list(blocks(page))


def test_numbers_may_differ_in_their_last_digits_only() -> None:
    assert close("a 0.6871 b", "a 0.687  b")
    assert not close("a 0.68 b", "a 0.687 b")
    assert not close("a 0.687 c", "a 0.687 b")
    assert not close("a 0.687", "a 0.687 0.1")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith((REPOSITORY, RAW)):
            file = ROOT / path.removeprefix(REPOSITORY).removeprefix(RAW)
        elif re.match(r"[a-z]+:", path):
            continue
        else:
            file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page.name}: {target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_scripts_and_tests_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/])((?:tests|scripts|examples|models)/[\w./-]*\w)", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_is_short_and_links_as_a_package_index_needs_it() -> None:
    lines = README.splitlines()
    assert len(lines) <= 180
    assert "```python" in lines[:60]
    relative = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in link]
    assert [link for link in relative if not link.startswith("#")] == []


def test_the_first_command_of_the_readme_prints_what_it_shows() -> None:
    found = re.search(r"^(embedge search [^\n]*)\n```\n\n```text\n(.*?)^```", README, re.M | re.S)
    assert found is not None
    assert close(run(found[1], ROOT), found[2])


LINES = re.findall(r"`(from embedge\.integrations\.(\w+) import [^`]*)`", README)


@pytest.mark.parametrize("line", [line for line, _ in LINES], ids=[name for _, name in LINES])
def test_each_integration_has_a_readme_line_that_works(line: str, folder: Path) -> None:
    """Whose framework is not installed is run by scripts/test-integrations."""
    program = f"""
from embedge.errors import InstallationError
try:
    {line}
except InstallationError as error:
    print(error)
"""
    if missing := run([sys.executable, "-c", program], folder):
        pytest.skip(missing)


def test_every_integration_has_a_readme_line() -> None:
    modules = {path.stem for path in (ROOT / "runtime/embedge/integrations").glob("*.py")}
    helpers = {"__init__", "framework", "precision", "ray", "topics"}
    assert {name for _, name in LINES} == modules - helpers


def test_every_page_is_linked_from_the_readme() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert f"{REPOSITORY}docs/{page.name}" in README, page.name


def test_every_sub_package_is_on_the_map() -> None:
    architecture = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for package in ("runtime/embedge", "export/embedge_export"):
        for path in (ROOT / package).iterdir():
            if path.is_dir() and list(path.glob("*.py")) and path.name != "__pycache__":
                assert f"`{path.name}/`" in architecture, path


def test_the_default_models_card_says_what_its_file_says() -> None:
    card = (ROOT / "models/all-MiniLM-L6-v2/README.md").read_text(encoding="utf-8")
    settings = read_default().settings
    repository = settings.source["repository"]
    assert settings.normalized
    for fact in (
        f"# {settings.name}, {settings.quantization.partition('-')[0]}\n",
        f"vectors of {settings.dim} components of unit length",
        f"cut at {settings.max_tokens} tokens",
        f"| file | `{default_model().name}` |",
        f"| source | [{repository}](https://huggingface.co/{repository}) |",
        f"| weights | SHA-256 `{settings.source['weights_sha256']}` |",
        f"| architecture | {settings.source['architecture'].upper()}, ",
        f"| pooling | {settings.pooling} over ",
        f"| license | {settings.license} ",
    ):
        assert fact in card


def test_every_error_is_documented() -> None:
    import embedge

    api = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for name in embedge.__all__:
        if name.endswith(("Error", "Warning")):
            assert f"`{name}`" in api
