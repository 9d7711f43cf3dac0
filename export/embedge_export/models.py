"""`embedge models`: the models that have a recipe. Needs no more than the runtime does."""

import argparse
import json
from typing import Any

from embedge_export.catalogue import recipes
from embedge_export.recipe import Recipe

EPILOG = """verified:
  real weights   exported from the published weights and measured
  architecture   a small model of the same kind was exported and compared with PyTorch
  not exported   one ONNX file cannot hold it

examples:
  embedge models
  embedge export bge-small-en-v1.5 -o bge-small-en-v1.5.onnx
"""
COLUMNS = ("name", "dim", "max_tokens", "languages", "license", "verified")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge models`."""
    parser.epilog = EPILOG
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the models, as a table or as JSON."""
    rows = [_row(Recipe.read(path)) for path in recipes().values()]
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    table = [COLUMNS, *(tuple(_cell(row[key]) for key in COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


def _row(recipe: Recipe) -> dict[str, Any]:
    keys = ("source", "matryoshka_dims", "prompts", "note", *COLUMNS[1:])
    return {"name": recipe.title, **{key: getattr(recipe, key) for key in keys}}


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
