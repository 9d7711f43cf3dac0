"""An app's own exception in the middle of a call, from a signal's handler, reaches the app.

A task queue's time limit, for one, is an exception that a handler raises. Most of the time the
thread is in native code, so it comes where that code's own errors are turned into ours.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from embedge import Encoder, ModelError
from embedge.errors import is_native
from embedge.ort.providers import ort


class TimeLimitError(Exception):
    """As Celery's SoftTimeLimitExceeded."""


class Cancelled(BaseException):
    """As those of trio and gevent."""


FOREIGN = [TimeLimitError, Cancelled, TimeoutError, RecursionError, KeyboardInterrupt, SystemExit]
CALLS: dict[str, Callable[[Encoder], object]] = {
    "encode": lambda encoder: encoder.encode("a b"),
    "many": lambda encoder: encoder.encode(["a b", "a"] * 50),
    "iter": lambda encoder: list(encoder.encode_iter(["a b"])),
    "explain": lambda encoder: encoder.explain("a", ["b"]),
}


class Raises:
    """Stands for the native object, whose every method raises."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def call(*arguments: object, **options: object) -> NoReturn:
            raise self._error("not about the model")

        return call


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", FOREIGN)
@pytest.mark.parametrize("part", ["session", "tokenizer"])
def test_in_a_call(
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    error: type[BaseException],
    call: str,
) -> None:
    monkeypatch.setattr(getattr(encoder._pipeline, part), f"_{part}", Raises(error))
    with pytest.raises(error, match="not about the model") as raised:
        CALLS[call](encoder)
    assert type(raised.value) is error


@pytest.mark.parametrize("error", FOREIGN)
@pytest.mark.parametrize("name", ["embedge.text.tokenizer.Tokenizer", "session"])
def test_while_it_loads(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[BaseException]
) -> None:
    if name == "session":
        monkeypatch.setattr(ort, "InferenceSession", Raises(error).load)
    else:
        monkeypatch.setattr(name, Raises(error))
    with pytest.raises(error, match="not about the model"):
        Encoder(tiny_file, threads=4)


@pytest.mark.parametrize("error", [Exception, RuntimeError, ValueError])
@pytest.mark.parametrize("part", ["session", "tokenizer"])
def test_errors_of_native_code_are_ours(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, part: str, error: type[Exception]
) -> None:
    monkeypatch.setattr(getattr(encoder._pipeline, part), f"_{part}", Raises(error))
    with pytest.raises(ModelError, match="not about the model"):
        encoder.encode("a b")
    assert is_native(ort.capi.onnxruntime_pybind11_state.Fail("of onnxruntime"))
