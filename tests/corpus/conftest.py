"""The tiny model of tests/runtime, with 16 components, and ways to make corpora."""

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


@pytest.fixture(scope="session")
def model_file(wide_file: Path) -> Path:
    return wide_file


@pytest.fixture(scope="session")
def other_model(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tiny.write(tmp_path_factory.mktemp("model") / "other.onnx", tiny.wide(16, seed=1))
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
