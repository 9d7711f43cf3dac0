"""What all tests share."""

import importlib.util
import io
import os
import time
from pathlib import Path
from types import ModuleType

import pytest

# Files that take minutes, the longest first: what begins last should be short.
LONGEST = ("test_architectures.py", "test_ray.py", "test_pipeline.py", "test_refusals.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order is that of collection otherwise."""
    last = len(LONGEST)
    items.sort(key=lambda item: LONGEST.index(n) if (n := item.path.name) in LONGEST else last)


@pytest.fixture(scope="session")
def eval_data() -> Path:
    """The folder of evaluation data; tests that use it are skipped where there is none."""
    folder = os.environ.get("EMBEDGE_EVAL_DATA")
    if not folder:
        pytest.skip("set EMBEDGE_EVAL_DATA to the folder of evaluation data to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/runtime/tiny.py, which writes model files."""
    path = Path(__file__).parent / "runtime" / "tiny.py"
    spec = importlib.util.spec_from_file_location("tiny", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_file(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, of two components."""
    path: Path = tiny.write(tmp_path_factory.mktemp("tiny") / "tiny.onnx")
    return path


@pytest.fixture(scope="session")
def wide_file(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, of 16 components."""
    path: Path = tiny.write(tmp_path_factory.mktemp("wide") / "wide.onnx", tiny.wide(16))
    return path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal() -> io.StringIO:
    """A terminal that keeps what is drawn."""
    return Terminal()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves only when its one number is changed."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now
