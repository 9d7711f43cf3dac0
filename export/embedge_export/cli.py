"""`embedge export`. Imports nothing heavy before it is told to export."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedge.errors import ExportError, OptionError
from embedge_export.recipe import Recipe

INSTALL = "python -m pip install 'embedge[export]'"

EXAMPLES = """examples:
  embedge export sentence-transformers/all-MiniLM-L6-v2 -o all-MiniLM-L6-v2.onnx
  embedge export ./my-fine-tuned-model -o my-model.onnx --format fp32
  embedge export models/all-MiniLM-L6-v2 -o model.onnx      (a recipe)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge export`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "source",
        help="a recipe.toml or its folder, a sentence-transformers or transformers folder, "
        "or a hub id",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, help="the file to write")
    parser.add_argument("--format", choices=("int8", "fp32"), default="int8")
    parser.add_argument("--name", help="the model's name (default: of the source)")
    parser.add_argument("--revision", help="commit, tag or branch of a hub id")
    parser.add_argument("--max-tokens", type=int, help="instead of the model's own limit")
    parser.add_argument("--pooling", help="instead of the model's own pooling mode")
    parser.add_argument("--licence", help="SPDX identifier of the weights' licence")
    parser.add_argument(
        "--calibration", type=Path, help="texts to choose int8 ranges with, one a line"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Export, and print the steps on standard error and the report on standard output."""
    export = load_export()
    given = {
        key: getattr(arguments, key)
        for key in ("name", "revision", "max_tokens", "pooling", "licence")
        if getattr(arguments, key) is not None
    }
    recipe = dataclasses.replace(Recipe.of(arguments.source), **given)
    report = export(
        recipe,
        arguments.output,
        format=arguments.format,
        calibration=_texts(arguments.calibration),
        notify=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if arguments.json:
        print(json.dumps(report, indent=2))
    return 0


def load_export() -> Callable[..., dict[str, Any]]:
    """Import the pipeline; raises ExportError with the install line where the extra is missing."""
    try:
        from embedge_export.pipeline import export
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("embedge"):
            raise
        raise ExportError(
            "install", f"exporting needs more than running (no {error.name}); run: {INSTALL}"
        ) from error
    return export


def _texts(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--calibration {path} cannot be read: {error}") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise OptionError(f"--calibration {path} holds no texts")
    return texts
