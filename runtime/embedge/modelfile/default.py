"""Where the model that ships with the package is: in the wheel, or in a checkout of the source."""

from pathlib import Path

from embedge.errors import ModelError
from embedge.modelfile.file import ModelFile, read

DEFAULT_MODEL = "all-MiniLM-L6-v2"
# SHA-256 over the graph with its weights, the tokenizer and the settings. `read` computes it of
# every file, so comparing costs nothing. It notices a file that was swapped, patched or left over
# from another version; not one who can change this line as well.
DEFAULT_FINGERPRINT = "82d18ec1e8882c25e7df5f18625f8581b1233592f9ba1a0d398a0d49df287ab4"


def default_model() -> Path:
    """Path of the default model's int8 file.

    Raises:
        ModelError: the installation is incomplete.
    """
    name = f"{DEFAULT_MODEL}.int8.onnx"
    package = Path(__file__).resolve().parent.parent
    installed = package / "models" / name
    checkout = package.parent.parent / "models" / DEFAULT_MODEL / name
    for path in (installed, checkout):
        if path.is_file():
            return path
    raise ModelError(
        f"the default model {name} is missing from this installation (looked in "
        f"{installed.parent}); install embedge again, or give the path of a model file"
    )


def read_default() -> ModelFile:
    """Read the default model's file, as `read` does, and check that it is this version's.

    Raises:
        ModelError: the installation is incomplete, or its model is another one.
    """
    file = read(default_model())
    if file.fingerprint != DEFAULT_FINGERPRINT:
        raise ModelError(
            f"{file.path}: the model that ships with this version has the fingerprint "
            f"{DEFAULT_FINGERPRINT[:16]}..., but this file has {file.fingerprint[:16]}...; install "
            "embedge again, or give the path of the file if it is meant to be another model"
        )
    return file
