"""The tiny model with prompts, and another model of other vectors."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from embedge import Encoder


@pytest.fixture(scope="session")
def model(tiny_file: Path) -> str:
    """A model file whose prompts for queries and for documents give other vectors than none."""
    return str(tiny_file)


@pytest.fixture(scope="session")
def other(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model file of another fingerprint."""
    settings = replace(tiny.SETTINGS, prompts={"query": "c ", "passage": "b "})
    data = tiny.model(settings=settings)
    return str(tiny.write(tmp_path_factory.mktemp("other") / "tiny.onnx", data))


@pytest.fixture(scope="session")
def encoder(model: str) -> Encoder:
    return Encoder(model)
