"""`embedge duplicates`: groups of rows that are nearly the same."""

import argparse
from collections.abc import Iterator

from embedge.cli.options import add_model_arguments
from embedge.cli.reading import (
    add_corpus_argument,
    add_quiet_argument,
    add_reading_arguments,
    corpus_vectors,
    one_line,
    say_truncated,
)
from embedge.cli.streams import print_json
from embedge.corpus.rows import Id
from embedge.corpus.search import check_threshold, duplicates
from embedge.encoder import Encoder
from embedge.progress import ProgressBar

_ROWS_AT_ONCE = 65_536

EXAMPLES = """examples:
  embedge duplicates sentences.txt --threshold 0.9
  embedge duplicates vectors.npy --threshold 0.95 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge duplicates`."""
    parser.epilog = EXAMPLES
    parser.description = (
        "Print groups of near-duplicates. All pairs of rows are compared, so that the time grows "
        "with the square of their number: ten times the rows take a hundred times as long."
    )
    add_corpus_argument(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--threshold",
        type=float,
        default=0.95,
        metavar="X",
        help="similarity from which two texts are near-duplicates (default: 0.95)",
    )
    group.add_argument("--json", action="store_true", help="one JSON object a line")
    add_quiet_argument(group)
    add_reading_arguments(parser)
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the groups of near-duplicates."""

    def check(encoder: Encoder) -> None:
        check_threshold(arguments.threshold, encoder.info["similarity"])

    with corpus_vectors(arguments, check=check) as (vectors, encoder):
        with ProgressBar(
            len(vectors) * (len(vectors) - 1) // 2, not arguments.quiet, unit="pairs"
        ) as bar:
            groups = duplicates(vectors, arguments.threshold, bar.move_to)
        if encoder:
            say_truncated(encoder)
        number = 0
        for some in _batches(groups):
            found = vectors.find([row for group in some for row in group])
            for group in some:
                _print(arguments, group, found, number)
                number += 1
    return 0


def _batches(groups: list[list[int]]) -> Iterator[list[list[int]]]:
    """Groups of some thousand rows at a time, whose texts fit into memory."""
    batch: list[list[int]] = []
    rows = 0
    for group in groups:
        batch.append(group)
        rows += len(group)
        if rows >= _ROWS_AT_ONCE:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def _print(
    arguments: argparse.Namespace,
    group: list[int],
    found: dict[int, tuple[Id, str | None]],
    number: int,
) -> None:
    if arguments.json:
        ids, texts = zip(*(found[row] for row in group), strict=True)
        print_json({"rows": group, "ids": ids, "texts": texts})
        return
    if number:
        print()
    for row in group:
        print("\t".join(one_line(*found[row])))
