"""`embedge info`: what is in a model file."""

import argparse
from pathlib import Path
from typing import Any

from embedge.cli.options import model_path
from embedge.cli.streams import print_json
from embedge.modelfile.card import card, printable
from embedge.modelfile.default import default_model
from embedge.modelfile.file import read

EXAMPLES = """examples:
  embedge info
  embedge info my-model.onnx --json
  embedge info my-model.onnx --card > README.md
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge info`."""
    parser.epilog = EXAMPLES
    add_file_argument(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--card", action="store_true", help="print a model card in Markdown")
    form.add_argument("--json", action="store_true", help="print JSON")


def add_file_argument(parser: argparse.ArgumentParser) -> None:
    """Add the model file to show."""
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="a model file (default: $EMBEDGE_MODEL, or the one that ships with embedge)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what is in a file, as a tree, JSON or a card."""
    file = read(model_path(arguments.file) or default_model())
    if arguments.card:
        print(card(file), end="")
    elif arguments.json:
        print_json(file.describe(), indent=2)
    else:
        _print_tree(file.describe())
    return 0


def _print_tree(value: dict[str, Any], indent: str = "") -> None:
    width = max((len(printable(key)) for key in value), default=0)
    for key, item in value.items():
        key = printable(key)
        if isinstance(item, dict) and item:
            print(f"{indent}{key}")
            _print_tree(item, indent + "  ")
        elif isinstance(item, (list, tuple)) and item:
            print(f"{indent}{key}")
            for element in item:
                print(f"{indent}  {printable(element) or '(empty text)'}")
        else:
            shown = "-" if item in ({}, [], (), None, "") else printable(item)
            print(f"{indent}{key:{width}}  {shown}")
