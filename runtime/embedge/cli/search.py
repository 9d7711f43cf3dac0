"""`embedge search`: the rows most like a query."""

import argparse
from pathlib import Path

from embedge.cli.options import add_model_arguments
from embedge.cli.reading import (
    add_quiet_argument,
    add_reading_arguments,
    corpus_vectors,
    make_encoder,
    one_line,
)
from embedge.cli.streams import print_json, say
from embedge.corpus.inputs import Corpus, find_sources
from embedge.corpus.rows import BadRow, Id
from embedge.corpus.search import Match, search
from embedge.errors import CorpusError, OptionError
from embedge.progress import ProgressBar

EXAMPLES = """examples:
  embedge search "a meal" sentences.txt
  embedge search "a meal" vectors.npy --top 3
  embedge search --queries questions.txt vectors.npy --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge search`."""
    parser.epilog = EXAMPLES
    parser.add_argument("query", help="a text; with --queries, the first of the corpus")
    parser.add_argument(
        "corpus",
        nargs="*",
        help="files, folders, - for standard input, or one file of vectors made before",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "-n", "--top", type=int, default=10, metavar="N", help="how many matches (default: 10)"
    )
    group.add_argument("--json", action="store_true", help="one JSON object a line")
    group.add_argument(
        "--queries",
        type=Path,
        metavar="FILE",
        help="search for each text of this file (.txt: a line each) instead of one query",
    )
    add_quiet_argument(group)
    add_reading_arguments(parser)
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the rows most like a query, or like each of many."""
    queries = _queries(arguments)
    with corpus_vectors(arguments) as (vectors, encoder):
        encoder = encoder or make_encoder(arguments, vectors.dim)
        if not len(vectors):
            say("there is nothing to search: the corpus has no rows")
        encoded = encoder.encode_query(queries)
        with ProgressBar(len(vectors), not arguments.quiet, unit="rows") as bar:
            found = search(encoded, vectors, arguments.top, bar.move_to)
        rows = vectors.find(sorted({match.row for matches in found for match in matches}))
        for query, matches in zip(queries, found, strict=True):
            _print(arguments, query, [(match, *rows[match.row]) for match in matches])
    return 0


def _queries(arguments: argparse.Namespace) -> list[str]:
    """The texts to search for; with --queries the positional query is one more of the corpus."""
    if arguments.queries is None:
        if not arguments.corpus:
            raise OptionError("expected files to search after the query, got none")
        return [arguments.query]
    arguments.corpus.insert(0, arguments.query)
    queries = []
    for row in Corpus(find_sources([arguments.queries])):
        if isinstance(row, BadRow):
            raise CorpusError(row.reason, row.file, row.line)
        queries.append(row.text)
    return queries


def _print(
    arguments: argparse.Namespace, query: str, found: list[tuple[Match, Id, str | None]]
) -> None:
    """Print the matches of one query, which is named where there are many."""
    named = {"query": query} if arguments.queries else {}
    for match, key, text in found:
        if arguments.json:
            place = {"score": match.score, "row": match.row, "id": key, "text": text}
            print_json({**named, **place})
        else:
            columns = [*one_line(*named.values()), f"{match.score:.4f}", *one_line(key, text)]
            print("\t".join(columns))
