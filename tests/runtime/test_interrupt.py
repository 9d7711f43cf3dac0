"""Ctrl-C of the command at chosen moments: exit status 130, no traceback, no abort."""

import sys

import pytest

from .conftest import Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to one's own process")

# The signal comes when a module is looked for: before, in the middle of, or after other imports.
COMMAND = """
import atexit, os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell's job starts us
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {moment!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
import embedge
class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), signal=signal.SIGINT):
        kill(process, signal)
if {moment!r} == "exit":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
elif {moment!r} == "teardown":
    sys.late = Late()
sys.argv = ["embedge", "embed", "a river"]
runpy.run_module("embedge", run_name="__main__", alter_sys=True)
"""
MOMENTS = (
    "embedge.cli.main",
    "numpy",
    "numpy.linalg",
    "tokenizers",
    "embedge.encoder",
    "onnxruntime",
    "onnxruntime.capi.onnxruntime_pybind11_state",
    "embedge.ort.session",
)


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_command_ends_with_130_and_says_nothing(python: Run, moment: str) -> None:
    result = python("-X", "faulthandler", "-c", COMMAND.format(moment=moment))
    assert result.stderr == ""
    assert result.returncode == 130
    assert result.stdout == ""


@pytest.mark.parametrize("moment", ["exit", "teardown"])
def test_a_command_that_has_ended_cannot_be_interrupted(python: Run, moment: str) -> None:
    """When Python ends, it sets handlers back to the default, which would kill the process."""
    result = python("-X", "faulthandler", "-c", COMMAND.format(moment=moment))
    assert result.stderr == ""
    assert result.returncode == 0
    assert len(result.stdout.split()) == 384


def test_an_error_without_an_interrupt_is_what_it_was(python: Run) -> None:
    result = python("-m", "embedge", "embed", "a", "--dim", "0")
    assert result.returncode == 2
    assert "expected dim to be an integer from 1 to" in result.stderr


def test_an_ignored_signal_stays_ignored(python: Run) -> None:
    code = COMMAND.format(moment="numpy").replace("signal.default_int_handler", "signal.SIG_IGN")
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 384
