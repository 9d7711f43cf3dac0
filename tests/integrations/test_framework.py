"""What the adapters share, and what is said where a framework is missing."""

import asyncio
import importlib
import re
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import Encoder, InstallationError, OptionError
from embedge.integrations import framework

FRAMEWORKS = {  # module: what it imports, and its extra
    "bertopic": ("bertopic", "bertopic"),
    "chroma": ("chromadb", "chroma"),
    "haystack": ("haystack", "haystack"),
    "keybert": ("keybert", "keybert"),
    "lancedb": ("lancedb", "lancedb"),
    "langchain": ("langchain_core", "langchain"),
    "llama_index": ("llama_index", "llama-index"),
    "mteb": ("mteb", "mteb"),
    "sklearn": ("sklearn", "sklearn"),
    "txtai": ("txtai", "txtai"),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_missing_framework_is_named_with_its_install_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, extra = FRAMEWORKS[name]
    for module in [module for module in sys.modules if module.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)  # type: ignore[arg-type]  # hides it
    monkeypatch.delitem(sys.modules, f"embedge.integrations.{name}", raising=False)
    message = rf'{library}.* cannot be imported .*python -m pip install "embedge\[{extra}\]"'
    with pytest.raises(InstallationError, match=message):
        importlib.import_module(f"embedge.integrations.{name}")


def test_every_extra_that_is_named_is_there() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    for _, extra in FRAMEWORKS.values():
        assert re.search(rf"^{extra} = \[", extras, re.M), extra


def test_another_fingerprint_is_refused(model: str, other: str) -> None:
    fingerprint = Encoder(model).fingerprint
    assert framework.load(model, None, None, fingerprint).fingerprint == fingerprint
    with pytest.raises(OptionError, match=rf"fingerprint {fingerprint[:16]}\.\.\., got "):
        framework.load(other, None, None, fingerprint)


def test_work_in_a_thread(encoder: Encoder) -> None:
    got = asyncio.run(framework.in_thread(encoder.encode_query, ["a b", "c"]))
    np.testing.assert_array_equal(got, encoder.encode_query(["a b", "c"]))


def test_a_cancelled_task_stops_the_work() -> None:
    """The work goes on until its progress raises, and the task ends only after that."""
    started, seen = threading.Event(), []

    def encode(texts: Any, progress: Any) -> None:
        started.set()
        try:
            while True:
                progress(0, None)
        except BaseException as error:
            seen.append(type(error))
            raise

    async def main() -> None:
        task = asyncio.create_task(framework.in_thread(encode, []))
        await asyncio.to_thread(started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == [asyncio.CancelledError]
