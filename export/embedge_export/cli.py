"""`embedge export`. Imports nothing heavy before an export begins."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from embedge.errors import ExportError, OptionError
from embedge_export.recipe import Recipe
from embedge_export.texts import read_lines

INSTALL = 'python -m pip install "embedge[export]"'

EXAMPLES = """examples:
  embedge export sentence-transformers/all-MiniLM-L6-v2 -o all-MiniLM-L6-v2.onnx
  embedge export ./my-fine-tuned-model -o my-model.onnx --format fp32
  embedge export bge-small-en-v1.5 -o bge-small-en-v1.5.onnx      (of `embedge models`)
  embedge export ./my-fine-tuned-model --all -o models
"""

# What replaces a field of the recipe.
RECIPE_OPTIONS: tuple[tuple[str, type, str], ...] = (
    ("--name", str, "the model's name (default: of the source)"),
    ("--revision", str, "commit, tag or branch of a hub id"),
    ("--max-tokens", int, "instead of the model's own limit"),
    ("--pooling", str, "instead of the model's own pooling mode"),
    ("--license", str, "SPDX identifier of the weights' license"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge export`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "source",
        help="a name of `embedge models`, a recipe.toml or its folder, a folder of "
        "sentence-transformers or transformers, or a hub id",
    )
    output = "the file to write (--all: its folder)"
    parser.add_argument("-o", "--output", required=True, type=Path, help=output)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=("int8", "fp16", "fp32"),
        default="int8",
        help="int8 for CPUs (default), fp16 for GPUs and CoreML, fp32",
    )
    form.add_argument("--all", action="store_true", help="write FOLDER/NAME.FORMAT.onnx for each")
    for option, kind, text in RECIPE_OPTIONS:
        parser.add_argument(option, type=kind, help=text)
    _add_measurements(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _add_measurements(parser: argparse.ArgumentParser) -> None:
    """Add what int8 is measured on, what it has to reach, and what the report measures."""
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="texts like those that the model will meet, one a line (a blank line is the empty "
        "text): every second one chooses int8 ranges, the others measure the result",
    )
    parser.add_argument(
        "--target",
        type=float,
        metavar="COSINE",
        help="int8 gives activations more precision until the mean cosine to fp32 is COSINE on "
        "held-out texts, and the 1st percentile differs from 1 by at most 2.5 times as much "
        "(default: 0.998, so 0.995)",
    )
    parser.add_argument(
        "--eval",
        type=Path,
        metavar="PAIRS.tsv",
        help="lines of text, text and score: the report has rank correlations",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, and print the steps on standard error and the report on standard output."""
    pipeline = load_pipeline()
    fields = [option[2:].replace("-", "_") for option, _, _ in RECIPE_OPTIONS]
    values = {field: getattr(arguments, field) for field in fields}
    given = {field: value for field, value in values.items() if value is not None}
    messages = sys.stderr  # itself: while a model loads and traces, `quiet` replaces sys.stderr
    recipe = dataclasses.replace(Recipe.of(arguments.source), **given)
    options = {
        "calibration": _texts(arguments.calibration),
        "pairs": arguments.eval and pipeline.Pairs.read(arguments.eval),
        "notify": lambda line: print(line, file=messages, flush=True),
    }
    if arguments.target is not None:
        options["target"] = arguments.target
    if arguments.all:
        report = pipeline.export_all(recipe, arguments.output, **options)
    else:
        report = pipeline.export(recipe, arguments.output, format=arguments.format, **options)
    if arguments.json:
        print(json.dumps(report, indent=2))
    return 0


def load_pipeline() -> Any:
    """Import the pipeline; raises ExportError with the install line where the extra is missing."""
    try:
        from embedge_export import pipeline
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("embedge"):
            raise
        raise ExportError(
            "install", f"exporting needs more than running (no {error.name}); run: {INSTALL}"
        ) from error
    return pipeline


def _texts(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        texts = read_lines(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--calibration {path} cannot be read: {error}") from error
    if not any(text.strip() for text in texts):
        raise OptionError(f"--calibration {path} holds no texts; give it at least one")
    return texts
