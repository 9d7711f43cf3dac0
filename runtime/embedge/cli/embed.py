"""`embedge embed`: vectors of texts, lines of standard input, or files."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from embedge.cli.job import add_job_arguments, run_job
from embedge.cli.lines import Lines, read_lines
from embedge.cli.options import add_model_arguments
from embedge.cli.passages import add_passage_arguments, passage_options
from embedge.cli.reading import (
    READING,
    add_reading_arguments,
    make_encoder,
    refuse_given,
    say_truncated,
)
from embedge.cli.streams import print_json, say, standard_input
from embedge.encoder import Encoder, Vector
from embedge.errors import OptionError, TextError
from embedge.similarity import Vectors
from embedge.text.overflow import Overflow

EXAMPLES = """examples:
  embedge embed "A man is eating food."
  embedge embed --json < sentences.txt
  embedge embed -o vectors.npy sentences.txt
  embedge embed articles.jsonl --field body --id url -o vectors.parquet
"""
_SHOWN = 8  # components on a terminal
# The beginning of a path, or the end of a file's name: of the kinds that are read, and some others.
_PATH = re.compile(
    r"(~|\.{1,2}|[a-z]:)?[\\/]\S+|\S*[*?]\S*[./\\]\S*|\S*[/\\]\S*[*?]\S*|"
    r".*\.(txt|jsonl|ndjson|json|csv|tsv|parquet|arrow|npy|md|html|pdf)(\.gz|\.zst)?",
    re.IGNORECASE,
)
_UNC = ("\\\\", "//", "\\/", "/\\")  # begin the path of another computer's file, or of a device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge embed`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "text",
        nargs="*",
        help="texts, or with --output files and folders; without any, lines of standard input",
    )
    add_job_arguments(parser)
    add_reading_arguments(parser)
    add_passage_arguments(parser)
    group = parser.add_argument_group("encoding")
    group.add_argument("--prompt", metavar="NAME", help="name of one of the model's prompts")
    group.add_argument(
        "--overflow",
        choices=get_args(Overflow),
        default="truncate",
        help="what happens to texts longer than the model takes (default: truncate)",
    )
    add_model_arguments(parser, dim=True)


def run(arguments: argparse.Namespace) -> int:
    """Print the vectors of texts, or write those of files."""
    if arguments.output is not None:
        return run_job(arguments, make_encoder(arguments, arguments.dim))
    passage_options(arguments)  # raises where --passages is missing
    defaults = {**READING, "dtype": "float32", "passages": False}
    refuse_given(arguments, defaults, "is for files, which need --output too")
    _warn_of_paths(arguments.text)
    encoder = make_encoder(arguments, arguments.dim)
    options: dict[str, Any] = {"prompt": arguments.prompt, "overflow": arguments.overflow}
    if arguments.text:
        vectors = encoder.encode(arguments.text, **options)
        _print_vectors(arguments.text, vectors, arguments.json)
    else:
        for texts, vectors in _answer(encoder, read_lines(standard_input()), options):
            _print_vectors(texts, vectors, arguments.json)
    say_truncated(encoder)
    if not arguments.json and sys.stdout.isatty() and encoder.dim > _SHOWN:
        say(f"shortened on a terminal; pipe it or add --json for all {encoder.dim} components")
    return 0


def _answer(
    encoder: Encoder, batches: Iterator[Lines], options: dict[str, Any]
) -> Iterator[tuple[list[str], Vectors]]:
    """Encode lines as they come; raises OptionError at a bad one, after those before it."""
    for first, texts in batches:
        try:
            yield texts, encoder.encode(texts, **options)
        except TextError as error:
            good = texts[: error.position]
            yield good, encoder.encode(good, **options)
            reason = str(error).replace(f"text {error.position}", "the text", 1)
            raise OptionError(f"standard input, line {first + error.position}: {reason}") from error


def _print_vectors(texts: Sequence[str], vectors: Vectors, as_json: bool) -> None:
    """Print a line for each text, and flush them."""
    short = sys.stdout.isatty()
    for text, vector in zip(texts, vectors, strict=True):
        if as_json:
            print_json({"text": text, "vector": vector.tolist()})
        else:
            print(_line(vector, short))
    sys.stdout.flush()


def _line(vector: Vector, short: bool) -> str:
    cut = short and len(vector) > _SHOWN
    values = " ".join(f"{value:.6f}" for value in (vector[:_SHOWN] if cut else vector))
    return f"{values} ..." if cut else values


def _warn_of_paths(texts: Sequence[str]) -> None:
    """Say which texts are, or look like, names of files: it is the name that gets encoded."""
    found = [text for text in texts if _exists(text) or _PATH.fullmatch(text)]
    if found:
        names = ", ".join(map(repr, found[:3])) + (", ..." if len(found) > 3 else "")
        there = "a file or folder has that name" if _exists(found[0]) else "it looks like a path"
        say(
            f"encoding {names} as text, though {there}; add --output VECTORS to encode what "
            "files hold"
        )


def _exists(text: str) -> bool:
    if text.startswith(_UNC):  # on Windows, looking would ask another computer
        return False
    try:
        return text != "" and Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or a character that no name has
        return False
