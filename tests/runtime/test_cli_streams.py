"""Standard input, output and error of the command: slow, closed, full, broken, of any encoding."""

import errno
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedge.cli import streams
from embedge.cli.lines import read_lines
from embedge.cli.main import main
from embedge.errors import OptionError

from . import tiny
from .conftest import Run

Capture = pytest.CaptureFixture[str]


class Keyboard(io.BytesIO):
    def isatty(self) -> bool:
        return True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def child(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`embedge` with pipes; one that does not answer is killed, so that reads end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "embedge", *arguments]
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def test_each_line_is_answered_before_the_next_is_written(tiny_file: Path) -> None:
    with child("embed", "--json", "-m", str(tiny_file)) as process:
        for text in ("a b", "c", "b b"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.write(b"a")  # a line without an end is one as well, when the stream ends
        process.stdin.close()
        assert json.loads(process.stdout.readline())["text"] == "a"
        assert process.stderr.read() == b""
    assert process.returncode == 0


class Slow(io.RawIOBase):
    """Gives one piece a read, as a pipe whose writer takes its time."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self._pieces.pop(0) if self._pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize(
    ("pieces", "batches"),
    [
        ([b"a\nb\n", b"c\n"], [(1, ["a", "b"]), (3, ["c"])]),
        ([b"a", b"b", b"\nc", b"d"], [(1, ["ab"]), (2, ["cd"])]),
        ([b"\n\n", b"\r\na\r\n"], [(1, ["", ""]), (3, ["", "a"])]),
        ([b"a\r", b"\nb"], [(1, ["a"]), (2, ["b"])]),
        ([b"\xc3", b"\xa9\n"], [(1, ["é"])]),
        ([b"\xef\xbb\xbfa\n\xef\xbb\xbfb"], [(1, ["a"]), (2, ["\ufeffb"])]),
        ([b"\xef", b"\xbb\xbfa\n"], [(1, ["a"])]),
        ([], []),
    ],
)
def test_lines_are_cut_wherever_reads_end(
    pieces: list[bytes], batches: list[tuple[int, list[str]]]
) -> None:
    assert list(read_lines(io.BufferedReader(Slow(pieces)))) == batches


def test_a_line_that_is_not_utf8_comes_after_the_good_ones() -> None:
    lines = read_lines(io.BytesIO(b"a\nb\n\xff\nc\n"))
    assert next(lines) == (1, ["a", "b"])
    with pytest.raises(OptionError, match=r"^standard input, line 3: not valid UTF-8 \("):
        next(lines)


@pytest.mark.parametrize(
    "data",
    [
        "a\nb\n".encode("utf-16"),
        b"\xfe\xff\0a",
        *("a\r\nb".encode(f"utf-16-{x}") for x in ("le", "be")),
    ],
)
def test_utf16_is_named(data: bytes) -> None:
    with pytest.raises(OptionError, match="standard input is UTF-16, expected UTF-8"):
        list(read_lines(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a b\nc\n\xff\na\n", "standard input, line 3: not valid UTF-8 ("),
        (b"a b\nc\n" + b"a " * 9, "standard input, line 3: the text has more than 8 tokens, "),
    ],
)
def test_one_bad_line_loses_no_good_one_before_it(
    tiny_file: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    message: str,
) -> None:
    type_in(monkeypatch, data)
    assert main(["embed", "-m", str(tiny_file), "--overflow", "error"]) == 2
    out, err = capsys.readouterr()
    assert out == "0.600000 0.800000\n-1.000000 0.000000\n"
    assert err.startswith(f"embedge: {message}")
    assert err.count("\n") == 1


def test_a_terminal_is_told_what_is_waited_for(
    tiny_file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Keyboard(b"a b\n")))
    assert main(["embed", "-m", str(tiny_file)]) == 0
    out, err = capsys.readouterr()
    assert out == "0.600000 0.800000\n"
    assert err.startswith("embedge: reading texts from the terminal, one a line; end with Ctrl-")


@pytest.mark.parametrize("options", [[], ["--json"], ["--dim", "8"]])
def test_vectors_are_shortened_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, options: list[str]
) -> None:
    path = tiny.write(tmp_path / "wide.onnx", tiny.wide(16))
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    assert main(["embed", "a b", "-m", str(path), *options]) == 0
    line, err = screen.getvalue(), capsys.readouterr().err
    if options:
        assert "..." not in line
        untrained = "embedge: the model was not trained to be truncated to --dim 8"
        assert err.startswith(untrained) if options[0] == "--dim" else err == ""
    else:
        assert len(line.split()) == 9
        assert line.endswith(" ...\n")
        assert err == (
            "embedge: shortened on a terminal; pipe it or add --json for all 16 components\n"
        )


def test_a_closed_standard_input_is_named(
    tiny_file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    for arguments in ([], ["-o", "v.npy"]):
        assert main(["embed", "-m", str(tiny_file), *arguments]) == 2
        assert capsys.readouterr() == (
            "",
            "embedge: standard input is closed; give texts, or the names of files\n",
        )


def test_results_without_an_output_are_an_error(
    tiny_file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """print() says nothing where sys.stdout is None."""
    monkeypatch.setattr(sys, "stdout", None)
    for arguments in (["embed", "-m", str(tiny_file), "a"], ["info", str(tiny_file)]):
        assert main(arguments) == 2
        assert capsys.readouterr().err == (
            "embedge: standard output cannot be written: it is closed\n"
        )
    assert sys.stdout is None


@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_a_windowed_program_has_no_standard_error(
    tiny_file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["embed", "-m", str(tiny_file), "a " * 9]) == 0  # and is told of the truncation
    assert main(["embed", "--no-such-option"]) == 2
    assert main(["embed", "-m", "missing.onnx", "a"]) == 2
    assert sys.stderr is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("arguments", [["embed", "a"], ["info"], ["--help"], ["embed", "-h"]])
def test_a_full_disk_is_one_line(tiny_file: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "embedge", *arguments]
    with open("/dev/full", "w") as full:  # noqa: PTH123  # a device
        result = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "EMBEDGE_MODEL": str(tiny_file)},
        )
    message = b"embedge: standard output cannot be written: No space left on device\n"
    if arguments[-1] in ("--help", "-h"):  # argparse itself ignores that it cannot write
        assert result.returncode in (0, 2)
        assert result.stderr in (b"", message)
    else:
        assert (result.returncode, result.stderr) == (2, message)


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("closed", "status"), [(">&-", 2), ("2>&-", 0), ("<&- >&- 2>&-", 2), ("2>/dev/full", 0)]
)
def test_streams_closed_by_the_shell(
    tiny_file: Path, tmp_path: Path, closed: str, status: int
) -> None:
    if "full" in closed and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which Linux has")
    text = "a " * 9  # which is truncated, and said so on standard error
    line = f'"{sys.executable}" -m embedge embed -m "{tiny_file}" "{text}" {closed}'
    result = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True)
    assert result.returncode == status, result.stderr
    assert b"Traceback" not in result.stderr
    assert (result.stdout != b"") == (status == 0)


AT_IMPORT = """
import signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = ["embed", "a b", "-m", {model!r}]
from embedge.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "name",
    ["embedge.cli.main", "argparse", "numpy", "embedge.encoder", "onnxruntime", "tokenizers"],
)
def test_ctrl_c_while_importing_is_status_130_and_silence(
    python: Run, tiny_file: Path, name: str
) -> None:
    result = python(AT_IMPORT.format(name=name, model=str(tiny_file)))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_ctrl_c_keeps_what_was_printed(python: Run) -> None:
    code = """
import signal, sys
from embedge.cli import info
import embedge.__main__
def run(arguments):
    print("before")
    signal.raise_signal(signal.SIGINT)
    print("after")
info.run = run
sys.argv[1:] = ["info"]
sys.exit(embedge.__main__.main())
"""
    result = python(code)
    assert (result.returncode, result.stdout, result.stderr) == (130, "before\n", "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no ignored SIGINT")
def test_an_ignored_interrupt_stays_ignored(python: Run) -> None:
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.argv[1:] = ["-V"]
import embedge.__main__
assert embedge.__main__.main() == 0
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_results_have_the_same_bytes_on_every_system(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that would get CRLF, as it does on Windows, gets LF."""
    with (tmp_path / "out").open("w", newline="\r\n", encoding="cp1252") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["embed", "-m", str(tiny_file), "--json", "é 文"]) == 0
    data = (tmp_path / "out").read_bytes()
    assert data.endswith(b"}\n")
    assert b"\r" not in data
    assert json.loads(data.decode())["text"] == "é 文"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_texts_are_printed_as_utf8_wherever(python: Run, tiny_file: Path, encoding: str) -> None:
    arguments = ("-m", "embedge", "embed", "--json", "--model", str(tiny_file))
    result = python(*arguments, stdin="文 é 🙂\n", PYTHONIOENCODING=encoding)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["text"] == "文 é 🙂"


@pytest.mark.skipif(os.name == "nt", reason="no SIGPIPE there")
def test_a_reader_that_leaves_early_is_no_error(tiny_file: Path) -> None:
    with child("embed", "--model", str(tiny_file), *["a"] * 20_000) as process:
        assert process.stdout.readline() == b"1.000000 0.000000\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_reader_that_leaves_on_windows_is_no_error(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """There a closed pipe is EINVAL."""

    class Left(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(streams, "_WINDOWS", True)
    monkeypatch.setattr(sys, "stdout", Left())
    assert main(["embed", "-m", str(tiny_file), "a"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["embed", "--help"]])
def test_help_that_cannot_be_printed_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err == "embedge: standard output cannot be written: it is closed\n"
