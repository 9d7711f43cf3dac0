"""How onnxruntime's session is made: threads of large models, forks, limits, other libraries."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from embedge import Encoder, InstallationError, ModelError, ResourceError
from embedge.ort import inference
from embedge.ort.fork_guard import _in_call
from embedge.ort.installation import import_problem
from embedge.text.passages import Passage

from . import tiny
from .conftest import Run

needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform == "darwin", reason="no safe fork on this system"
)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of as many components as large models have."""
    return tiny.write(tmp_path / "large.onnx", tiny.wide(512))


def options(encoder: Encoder) -> Any:
    session = encoder._pipeline.session._session
    assert session is not None
    return session.get_session_options()


@pytest.mark.parametrize(("threads", "sharing"), [(1, 1), (2, 2), (4, 4), (9, 4)])
def test_threads_share_the_micro_batches_of_large_models_only(
    large: Path, tiny_file: Path, threads: int, sharing: int
) -> None:
    assert options(Encoder(large, threads=threads)).intra_op_num_threads == sharing
    assert options(Encoder(tiny_file, threads=threads)).intra_op_num_threads == 1


@pytest.mark.parametrize(("threads", "concurrency"), [(1, 1), (2, 1), (4, 1), (9, 6)])
def test_micro_batches_that_share_threads_start_no_more_than_were_asked_for(
    large: Path, tiny_file: Path, threads: int, concurrency: int
) -> None:
    """Each concurrent call works in its own thread, besides those of onnxruntime's pool."""
    assert Encoder(large, threads=threads)._concurrency == concurrency
    assert Encoder(tiny_file, threads=threads)._concurrency == threads


def test_threads_sleep_and_no_plan_is_kept_for_every_shape(large: Path) -> None:
    found = options(Encoder(large, threads=2))
    assert found.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert found.enable_mem_pattern is False
    assert found.inter_op_num_threads == 1


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_vectors_of_a_large_model_have_the_same_bits_at_any_thread_count(
    large: Path, threads: int
) -> None:
    texts = [" ".join("abc"[i // 3**k % 3] for k in range(i % 9)) for i in range(60)]
    expected = Encoder(large, threads=1).encode(texts)
    np.testing.assert_array_equal(Encoder(large, threads=threads).encode(texts), expected)


@needs_fork
def test_a_forked_process_makes_its_own_session_and_ends(
    large: Path, check_forked: Callable[[str, str], None]
) -> None:
    """With the parent's, whose threads are not there, it would hang when it ends at the latest."""
    check_forked(
        f"encoder = Encoder({str(large)!r}, threads=2)\n"
        "session = encoder._pipeline.session\n"
        "inherited = session._session\n"
        "number = id(inherited)\n"
        "first = encoder.encode('a b c').tobytes()\n"
        "del inherited",
        "right = encoder.encode('a b c').tobytes() == first\n"
        "right = right and (id(session._session) == number) == (child != 0)",
    )


@needs_fork
@pytest.mark.parametrize("change", ["gone", "another"])
def test_a_forked_process_whose_file_has_changed_says_so(
    large: Path, python: Run, change: str
) -> None:
    other = tiny.write(large.parent / "other.onnx", tiny.wide(512, seed=1))
    act = "os.remove(path)" if change == "gone" else f"os.replace({str(other)!r}, path)"
    code = f"""
import os, warnings
warnings.simplefilter("ignore")
from embedge import Encoder, ModelError
path = {str(large)!r}
encoder = Encoder(path, threads=2)
encoder.encode("a")
{act}
if os.fork() == 0:
    try:
        encoder.encode("a")
    except ModelError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
print(encoder.encode("a").shape)
"""
    result = python(code)
    expected = "no such file" if change == "gone" else "the file has changed since"
    assert expected in result.stdout.splitlines()[0], result
    assert result.stdout.endswith("(512,)\n")


def test_where_no_thread_can_be_started_a_large_model_loads_with_one(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Encoder(large, threads=1).encode(["a", "a b"])
    make = inference._make

    def limited(parts: Any, size: int, choices: Any, threads: int) -> Any:
        if threads > 1:
            raise RuntimeError("pthread_create failed")
        return make(parts, size, choices, threads)

    monkeypatch.setattr(inference, "_make", limited)
    encoder = Encoder(large, threads=2)
    assert options(encoder).intra_op_num_threads == 1
    assert encoder._concurrency == 2
    np.testing.assert_array_equal(encoder.encode(["a", "a b"]), expected)


@pytest.mark.skipif(
    not hasattr(ort, "set_global_thread_pool_sizes"),
    reason="this onnxruntime has no global thread pools; upgrade it",
)
def test_threads_of_another_library_are_used_where_it_has_made_them(
    large: Path, python: Run
) -> None:
    """onnxruntime then takes no session with threads of its own."""
    code = f"""
import onnxruntime
onnxruntime.set_global_thread_pool_sizes(2, 1)
from embedge import Encoder
print(Encoder({str(large)!r}, threads=2).encode(["a", "a b"]).tobytes().hex())
"""
    result = python(code)
    expected = Encoder(large, threads=1).encode(["a", "a b"])
    assert result.stdout == f"{expected.tobytes().hex()}\n", result.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[ONNXRuntimeError] : 6 : std::bad_alloc"),
        RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 98304"),
    ],
)
def test_memory_that_has_run_out_is_not_blamed_on_the_model(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Full:
        def run(self, *arguments: object) -> None:
            raise error

    monkeypatch.setattr(encoder._pipeline.session, "_session", Full())
    with pytest.raises(ResourceError, match=r"not enough memory: .*raise this process's memory"):
        encoder.encode("a")
    monkeypatch.undo()
    assert encoder.encode("a").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("embedge.modelfile.file._bytes", lambda path, encoder: Encoder(path)),
        ("embedge.text.tokenizer.check_bounds", lambda path, encoder: Encoder(path)),
        (
            "embedge.text.tokenizer.TextTokenizer._encode_batch",
            lambda path, encoder: encoder.count_tokens(["a", "b"]),
        ),
        ("embedge.streaming.np.empty", lambda path, encoder: encoder.encode(["a"])),
    ],
)
def test_memory_that_python_or_numpy_lacks_is_our_error(
    tiny_file: Path,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    call: Callable[[Path, Encoder], object],
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 21.9 MiB")

    monkeypatch.setattr(name, full)
    with pytest.raises(ResourceError, match=r"not enough memory: Unable to allocate 21.9 MiB; cl"):
        call(tiny_file, encoder)


def test_what_must_not_be_forked_is_done_within_a_guarded_call(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import of onnxruntime, and everything of tokenizers and of onnxruntime's session."""
    from embedge.ort import loading
    from embedge.ort.providers import ort
    from embedge.text.tokenizer import TextTokenizer

    seen: list[str] = []

    def guard(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def checked(*arguments: Any, **options: Any) -> Any:
            assert _in_call(sys._getframe()), f"{name} is not guarded"
            seen.append(name)
            return work(*arguments, **options)

        monkeypatch.setattr(owner, name, checked)

    guard(loading, "_import_onnxruntime")
    guard(TextTokenizer, "__init__")
    guard(TextTokenizer, "_encode")
    guard(ort.InferenceSession, "__init__")
    guard(ort.InferenceSession, "run")
    encoder = Encoder(tiny_file, threads=1)
    encoder.encode(["a", "a b"])
    encoder.count_tokens("a")
    encoder.encode_passages("a b", [Passage("a b", 0, 3)])
    encoder.explain("a", "a b")
    assert set(seen) == {"_import_onnxruntime", "__init__", "_encode", "run"}
    assert seen.count("__init__") == 2


@needs_fork
def test_a_fork_in_the_middle_of_the_import_waits_for_its_end(
    check_forked: Callable[[str, str], None],
) -> None:
    """With the import half done in another thread, the forked process could never import it."""
    check_forked(
        "begun = threading.Event()\n"
        "class Tell:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime.capi._pybind_state':\n"
        "            begun.set()\n"
        "sys.meta_path.insert(0, Tell())\n"
        "threading.Thread(target=Encoder).start()\n"
        "begun.wait()",
        "right = Encoder().encode('One text.').shape == (384,)",
    )


def test_an_import_that_fails_is_said_in_words() -> None:
    for text, advice in (
        ("DLL load failed while importing onnxruntime_pybind11_state", "vc_redist.x64.exe"),
        ("libonnx.so: failed to map segment from shared object", "ulimit -v"),
        ("No module named 'onnxruntime'", "python -m pip install onnxruntime"),
        ("something else", "--force-reinstall onnxruntime"),
    ):
        message = import_problem(ImportError(text))
        assert text in message
        assert advice in message
    assert "two of its wheels" in import_problem(None)
    assert issubclass(InstallationError, ImportError)
    assert not issubclass(InstallationError, ModelError)


UNREADABLE = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            raise ImportError("its library cannot be read") from OSError(5, "Input/output error")
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ("sys.modules['onnxruntime'] = None", "onnxruntime cannot be imported in Python"),
        ("sys.modules['onnxruntime'] = types.ModuleType('onnxruntime')", "only in part"),
        (UNREADABLE, "its library cannot be read"),
    ],
)
def test_without_a_working_onnxruntime_our_error_comes(
    python: Run, tiny_file: Path, setup: str, message: str
) -> None:
    code = f"""
import sys, types
from embedge import Encoder, EmbedgeError
{setup}
try:
    Encoder({str(tiny_file)!r})
except EmbedgeError as error:
    print(type(error).__name__, error)
"""
    result = python(code)
    assert result.stdout.startswith("InstallationError "), result.stderr
    assert message in result.stdout
