"""The tiny model of tests/runtime, with 16 components, and ways to make corpora."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from embedge import Encoder
from embedge.corpus import job
from embedge.corpus.inputs import Corpus, find_sources
from embedge.corpus.job import JobOptions, Summary
from embedge.corpus.rows import BadRow, Row

MakeCorpus = Callable[..., Corpus]


def embed_corpus(
    encoder: Encoder, corpus: Corpus, output: Path, *, progress: bool = False, **options: Any
) -> Summary:
    """A job with its options as keywords."""
    return job.embed_corpus(encoder, corpus, output, JobOptions(**options), progress=progress)


def load_tiny() -> ModuleType:
    path = Path(__file__).parent.parent / "runtime" / "tiny.py"
    spec = importlib.util.spec_from_file_location("corpus_tiny", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = load_tiny()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = TINY.write(tmp_path_factory.mktemp("model") / "wide.onnx", TINY.wide(16))
    return path


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = TINY.write(tmp_path_factory.mktemp("model") / "other.onnx", TINY.wide(16, seed=1))
    return path


@pytest.fixture(scope="session")
def encoder(model_file: Path) -> Encoder:
    return Encoder(model_file, threads=1)


@pytest.fixture
def corpus(tmp_path: Path) -> MakeCorpus:
    """Write files (name to text or bytes) and open them as one corpus, in that order."""

    def make(
        files: dict[str, str | bytes],
        field: str | None = None,
        id: str | None = None,
        keep: Sequence[str] = (),
    ) -> Corpus:
        paths = []
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            paths.append(path)
        return Corpus(find_sources(paths), field, id, keep)

    return make


def good(rows: Sequence[Row | BadRow]) -> list[tuple[object, str, int]]:
    """Id, text and line of rows, all of which must be good."""
    assert not [row for row in rows if isinstance(row, BadRow)]
    return [(row.id, row.text, row.line) for row in rows if isinstance(row, Row)]


def bad(rows: Sequence[Row | BadRow]) -> list[tuple[int, str]]:
    """Line and reason of the bad ones among rows."""
    return [(row.line, row.reason) for row in rows if isinstance(row, BadRow)]
