"""`embedge embed`: vectors of texts, lines of standard input, or files."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, get_args

from embedge.cli.job import add_job_arguments, run_job
from embedge.cli.options import add_model_arguments
from embedge.cli.reading import READING, add_reading_arguments, make_encoder, refuse_given
from embedge.cli.streams import say
from embedge.encoder import Encoder
from embedge.errors import OptionError
from embedge.text.overflow import Overflow

EXAMPLES = """examples:
  embedge embed "A man is eating food."
  embedge embed --json < sentences.txt
  embedge embed -o vectors.npy sentences.txt
  embedge embed articles.jsonl --field body --id url -o vectors.parquet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge embed`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "text",
        nargs="*",
        help="texts, or with --output files and folders; without any, standard input",
    )
    add_job_arguments(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line: text, vector; with --output one in all: what was done",
    )
    add_reading_arguments(parser)
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
    encoder = make_encoder(arguments, arguments.dim)
    if arguments.output is not None:
        return run_job(arguments, encoder)
    defaults = {**READING, "dtype": "float32"}
    refuse_given(arguments, defaults, "is for files, which need --output too")
    _print_vectors(arguments, encoder)
    return 0


def _print_vectors(arguments: argparse.Namespace, encoder: Encoder) -> None:
    options: dict[str, Any] = {"prompt": arguments.prompt, "overflow": arguments.overflow}
    texts = arguments.text or _lines(sys.stdin.buffer)
    kept: list[str] = []  # the texts read ahead of their vectors
    for vector in encoder.encode_iter(_keep(texts, kept), **options):
        text = kept.pop(0)
        if arguments.json:
            values = json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False)
        else:
            values = " ".join(f"{value:.6f}" for value in vector)
        print(values)
    if encoder.truncated:
        say(f"{encoder.truncated} texts were truncated to {encoder.max_tokens} tokens")


def _lines(stream: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise OptionError(f"standard input, line {number}: not valid UTF-8 ({error})") from None


def _keep(texts: Sequence[str] | Iterator[str], kept: list[str]) -> Iterator[str]:
    for text in texts:
        kept.append(text)
        yield text
