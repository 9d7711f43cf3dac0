"""`embedge search`: the rows most like a query."""

import argparse

from embedge.cli.options import add_model_arguments
from embedge.cli.reading import (
    add_corpus_argument,
    add_reading_arguments,
    corpus_vectors,
    make_encoder,
    shown,
)
from embedge.cli.streams import print_json
from embedge.corpus.search import search

EXAMPLES = """examples:
  embedge search "a meal" sentences.txt
  embedge search "a meal" vectors.npy --top 3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge search`."""
    parser.epilog = EXAMPLES
    parser.add_argument("query", help="a text")
    add_corpus_argument(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "-n", "--top", type=int, default=10, metavar="N", help="how many matches (default: 10)"
    )
    group.add_argument("--json", action="store_true", help="one JSON object a line")
    add_reading_arguments(parser)
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the rows most like a query."""
    with corpus_vectors(arguments) as (vectors, encoder):
        encoder = encoder or make_encoder(arguments, vectors.dim)
        query = encoder.encode_query([arguments.query])
        (matches,) = search(query, vectors, arguments.top)
        found = vectors.find([match.row for match in matches])
        for match in matches:
            key, text = found[match.row]
            if arguments.json:
                print_json({"score": match.score, "row": match.row, "id": key, "text": text})
            else:
                print("\t".join([f"{match.score:.4f}", *shown(key, text)]))
    return 0
