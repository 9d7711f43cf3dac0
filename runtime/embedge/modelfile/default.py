"""Where the model that ships with the package is: in the wheel, in a checkout, or in a zip."""

import atexit
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from embedge.errors import ModelError
from embedge.modelfile.file import ModelFile, parse, read

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

DEFAULT_MODEL = "all-MiniLM-L6-v2"
# SHA-256 over the graph with its weights, the tokenizer and the settings. `read` computes it for
# every file, so comparing costs nothing. It detects a file that was replaced, patched or left over
# from another version; not an attacker who can change this line as well.
DEFAULT_FINGERPRINT = "a58c5cf22b7c57552a779c53baf934b320dd575ddf033575db64d647863877f0"


# The options that add the model to a bundle whose bundler was kept from finding it.
_BUNDLE_AGAIN = (
    "build it again with PyInstaller's --collect-data embedge, Nuitka's "
    "--include-package-data=embedge or cx_Freeze's --packages=embedge"
)
_NAME = f"{DEFAULT_MODEL}.int8.onnx"
_PACKAGE = Path(__file__).resolve().parent.parent


def default_model() -> Path:
    """Path of the default model's int8 file; out of a zip it is unpacked until the process ends.

    Raises:
        ModelError: the installation is incomplete.
    """
    found = _find()
    return found if isinstance(found, Path) else _unpack()


def read_default() -> ModelFile:
    """Read the default model's file, as `read` does, and check that it is this version's.

    Raises:
        ModelError: the installation is incomplete, or its model is another one.
    """
    found = _find()
    if isinstance(found, Path):
        file = read(found)
    else:
        file = parse(found.read_bytes(), _PACKAGE / "models" / _NAME)
    if file.fingerprint != DEFAULT_FINGERPRINT:
        raise ModelError(
            f"{file.path}: the model that ships with this version has the fingerprint "
            f"{DEFAULT_FINGERPRINT[:16]}..., but this file has {file.fingerprint[:16]}...; install "
            "embedge again, or give the path of the file if it is meant to be another model"
        )
    return file


def _find() -> "Path | Traversable":
    """The model of an installed package, of a checkout, or in a zip that Python imports from."""
    installed = _PACKAGE / "models" / _NAME
    checkout = _PACKAGE.parent.parent / "models" / DEFAULT_MODEL / _NAME
    for path in (installed, checkout):
        if path.is_file():
            return path
    from importlib import resources  # slow to import, seldom needed

    zipped = resources.files("embedge") / "models" / _NAME
    if zipped.is_file():
        return zipped
    # Nuitka marks the modules that it compiles, other bundlers the interpreter.
    frozen = hasattr(sys, "frozen") or "__compiled__" in globals()
    raise ModelError(
        f"the default model {_NAME} is missing from this "
        f"{'bundle' if frozen else 'installation'} (looked in {installed.parent}); "
        f"{_BUNDLE_AGAIN if frozen else 'install embedge again'}, or give the path of a model file"
    )


@cache
def _unpack() -> Path:
    from importlib import resources

    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(resources.as_file(resources.files("embedge") / "models" / _NAME))
