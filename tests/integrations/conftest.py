"""The tiny model with prompts, and another model of other vectors."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from embedge import Encoder


def load_tiny() -> ModuleType:
    path = Path(__file__).parent.parent / "runtime" / "tiny.py"
    spec = importlib.util.spec_from_file_location("integrations_tiny", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load_tiny()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model file whose prompts for queries and for documents give other vectors than none."""
    return str(tiny.write(tmp_path_factory.mktemp("model") / "tiny.onnx"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model file of another fingerprint."""
    settings = replace(tiny.SETTINGS, prompts={"query": "c ", "passage": "b "})
    data = tiny.model(settings=settings)
    return str(tiny.write(tmp_path_factory.mktemp("other") / "tiny.onnx", data))


@pytest.fixture(scope="session")
def encoder(model: str) -> Encoder:
    return Encoder(model)
