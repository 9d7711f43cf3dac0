"""`embedge unpack`: a model file as the folder that other tools load."""

import argparse
from pathlib import Path

from embedge.modelfile.card import printable
from embedge.modelfile.file import read
from embedge.modelfile.unpack import READERS, unpack

EXAMPLES = """examples:
  embedge unpack my-model.onnx my-model
  embedge unpack my-model.onnx my-model --for sentence-transformers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge unpack`."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", type=Path, help="a model file")
    parser.add_argument("folder", type=Path, help="where to write; a new or an empty folder")
    parser.add_argument(
        "--for",
        dest="readers",
        action="append",
        choices=READERS,
        help="a tool that has to give the file's vectors, may be repeated (default: all of them)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the folder and list its contents."""
    file = read(arguments.file)
    for path in unpack(file, arguments.folder, arguments.readers or READERS):
        print(printable(arguments.folder / path))
    settings = file.settings
    normalize = "normalized" if settings.normalized else "not normalized"
    print(f"Where a tool asks: pooling {printable(settings.pooling)}, {normalize}.")
    if settings.default_dim is not None:
        print(
            f"Tools give all {settings.dim} components; embedge keeps the first "
            f"{settings.default_dim} by default."
        )
    return 0
