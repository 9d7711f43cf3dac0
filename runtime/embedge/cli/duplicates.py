"""`embedge duplicates`: groups of rows that are nearly the same."""

import argparse

from embedge.cli.options import add_model_arguments
from embedge.cli.reading import add_corpus_argument, add_reading_arguments, corpus_vectors, shown
from embedge.cli.streams import print_json
from embedge.corpus.search import duplicates

EXAMPLES = """examples:
  embedge duplicates sentences.txt --threshold 0.9
  embedge duplicates vectors.npy --threshold 0.95 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge duplicates`."""
    parser.epilog = EXAMPLES
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
    add_reading_arguments(parser)
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the groups of near-duplicates."""
    with corpus_vectors(arguments) as (vectors, _):
        groups = duplicates(vectors, arguments.threshold)
        found = vectors.find([row for group in groups for row in group])
        for number, group in enumerate(groups):
            if arguments.json:
                ids, texts = zip(*(found[row] for row in group), strict=True)
                print_json({"rows": group, "ids": ids, "texts": texts})
                continue
            if number:
                print()
            for row in group:
                print("\t".join(shown(*found[row])))
    return 0
