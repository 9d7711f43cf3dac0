"""Where the model that ships with the package is: in the wheel, or in a checkout of the source."""

from pathlib import Path

from embedge.errors import ModelError

DEFAULT_MODEL = "all-MiniLM-L6-v2"


def default_model() -> Path:
    """Path of the default model's int8 file.

    Raises:
        ModelError: the installation is incomplete.
    """
    name = f"{DEFAULT_MODEL}.int8.onnx"
    package = Path(__file__).resolve().parent
    installed = package / "models" / name
    checkout = package.parent.parent / "models" / DEFAULT_MODEL / name
    for path in (installed, checkout):
        if path.is_file():
            return path
    raise ModelError(
        f"the default model {name} is missing from this installation (looked in "
        f"{installed.parent}); install embedge again, or give the path of a model file"
    )
