"""Options that several commands have, defined once."""

import argparse
import os
from pathlib import Path

MODEL_VARIABLE = "EMBEDGE_MODEL"


def add_model_arguments(parser: argparse.ArgumentParser, *, dim: bool = False) -> None:
    """Add which model file is used, and on what."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="FILE",
        help=f"a model file (default: ${MODEL_VARIABLE}, or the one that ships with embedge)",
    )
    group.add_argument(
        "--providers", default="auto", metavar="NAME", help="auto, cpu, cuda, ... (default: auto)"
    )
    group.add_argument(
        "--threads", type=int, metavar="N", help="default: as many as this process may use"
    )
    if dim:
        group.add_argument("--dim", type=int, metavar="N", help="keep this many leading components")


def model_path(given: Path | None) -> Path | None:
    """The model file that is meant: the one given, $EMBEDGE_MODEL, or None: the default model."""
    variable = os.environ.get(MODEL_VARIABLE)
    return given or (Path(variable) if variable else None)
