"""`embedge search`: the rows or documents most similar to a query, and the words that matched."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from embedge.cli.explaining import (
    bold_words,
    check_explainable,
    check_page,
    explain_found,
    strongest,
    write_page,
)
from embedge.cli.found import Found, find_documents, find_rows
from embedge.cli.options import add_model_arguments
from embedge.cli.passages import add_document_arguments, document_options
from embedge.cli.reading import (
    add_quiet_argument,
    add_reading_arguments,
    corpus_vectors,
    find_given,
    make_encoder,
    one_line,
    say_truncated,
)
from embedge.cli.streams import print_json, say
from embedge.cli.terminal import can_style
from embedge.corpus.inputs import Corpus
from embedge.corpus.rows import BadRow
from embedge.corpus.search import check_top
from embedge.corpus.vectors import StoredVectors
from embedge.encoder import Encoder
from embedge.errors import CorpusError, OptionError
from embedge.progress import ProgressBar

EXAMPLES = """examples:
  embedge search "a meal" sentences.txt
  embedge search "a meal" vectors.npy --top 3
  embedge search "a meal" articles.jsonl --passages --explain
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
        help="search for each text of this file (.txt: a line each), - for standard input",
    )
    group.add_argument(
        "--explain", action="store_true", help="show the words that carried each match"
    )
    group.add_argument(
        "--html", type=Path, metavar="FILE", help="write the matches with their words as a page"
    )
    group.add_argument("--force", action="store_true", help="replace the file that --html names")
    add_quiet_argument(group)
    add_document_arguments(parser)
    add_reading_arguments(parser)
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the rows or documents most like a query, or like each of many."""
    check_top(arguments.top)
    if arguments.html is not None:
        check_page(arguments.html, arguments.force)
    elif arguments.force:
        raise OptionError(
            "expected --html FILE together with --force; add it, or leave --force out"
        )
    queries = _queries(arguments)
    passages = document_options(arguments)
    explained = arguments.explain or arguments.html is not None

    def check(encoder: Encoder, vectors: StoredVectors | None = None) -> None:
        if explained:
            check_explainable(encoder, vectors)

    with corpus_vectors(arguments, passages, check) as (vectors, encoder):
        if encoder is None:  # the vectors were stored before
            encoder = make_encoder(arguments, vectors.dim)
            check(encoder, vectors)
        found = _find(arguments, queries, vectors, encoder)
    if explained:
        found = explain_found(encoder, queries, found)
    for query, matches in zip(queries, found, strict=True):
        _print(arguments, query, matches)
    if arguments.html is not None:
        write_page(arguments.html, queries, found, arguments.force)
    return 0


def _find(
    arguments: argparse.Namespace, queries: list[str], vectors: StoredVectors, encoder: Encoder
) -> list[list[Found]]:
    """The matches of each query, with what is to be said about them."""
    if not len(vectors):
        say("there is nothing to search: the corpus has no rows")
    find = find_documents if arguments.passages else find_rows
    encoded = encoder.encode_query(queries)
    with ProgressBar(len(vectors), not arguments.quiet, unit="rows") as bar:
        found = find(encoded, vectors, arguments.top, bar.move_to)
    say_truncated(encoder)
    documents = [match.fields.get("document", 0) for matches in found for match in matches]
    if None in documents:
        say(
            "documents are ranked by their best passage only: there are no vectors of whole "
            "documents; make them with embedge embed --passages --with-document"
        )
    return found


def _queries(arguments: argparse.Namespace) -> list[str]:
    """The texts to search for; with --queries the positional query is one more of the corpus."""
    if arguments.queries is None:
        if not arguments.corpus:
            raise OptionError("expected files to search after the query, got none")
        return [arguments.query]
    arguments.corpus.insert(0, arguments.query)
    name = str(arguments.queries)
    if name == "-" and "-" in arguments.corpus:
        raise OptionError("expected - once at most: standard input can be read only once")
    queries = []
    for row in Corpus(find_given(arguments, [name])):
        if isinstance(row, BadRow):
            raise CorpusError(row.reason, row.file, row.line)
        queries.append(row.text)
    if not queries:
        say(f"there is nothing to search for: {name} has no rows")
    return queries


def _print(arguments: argparse.Namespace, query: str, matches: Sequence[Found]) -> None:
    """Print the matches of one query, which is named where there are many."""
    named = {"query": query} if arguments.queries else {}
    style = not arguments.json and can_style(sys.stdout)
    for match in matches:
        if arguments.json:
            print_json({**named, **match.fields})
            continue
        text = one_line(match.text)
        if style and match.words:
            text = [bold_words(str(match.text), match.words)]
        score = f"{match.score:.4f}"
        print("\t".join([*one_line(*named.values()), score, *one_line(match.key), *text]))
        if match.words:
            print("\t" + "".join(one_line(strongest(match.words))))
