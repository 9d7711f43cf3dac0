"""How the commands split texts into passages."""

import argparse

from embedge.corpus.passages import PassageOptions
from embedge.errors import OptionError

# A few sentences: passages of all that a model takes would be whole texts, most often.
_SEARCHED_TOKENS = 48


def add_passage_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how `embedge embed` splits texts."""
    group = parser.add_argument_group("passages")
    group.add_argument(
        "--passages",
        action="store_true",
        help="split each text into passages, at sentence ends where possible: a row for each",
    )
    group.add_argument(
        "--passage-tokens",
        type=int,
        metavar="N",
        help="tokens of a passage at most (default: all that the model takes)",
    )
    group.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="up to how many tokens of its end the next passage begins with (default: 0)",
    )
    group.add_argument(
        "--context",
        action="store_true",
        help="let the model read the whole text, and take the passages' vectors from there",
    )
    group.add_argument("--with-document", action="store_true", help="add a row for each whole text")


def passage_options(arguments: argparse.Namespace) -> PassageOptions | None:
    """How texts are split; None: they are not.

    Raises:
        OptionError: an option of passages is given without --passages.
    """
    given = {
        "--passage-tokens": arguments.passage_tokens is not None,
        "--overlap": arguments.overlap is not None,
        "--context": arguments.context,
        "--with-document": arguments.with_document,
    }
    if arguments.passages:
        return PassageOptions(
            arguments.passage_tokens,
            arguments.overlap or 0,
            arguments.context,
            arguments.with_document,
        )
    for option, is_given in given.items():
        if is_given:
            raise OptionError(f"expected --passages together with {option}; add it")
    return None


def add_document_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how `embedge search` looks into documents."""
    group = parser.add_argument_group("passages")
    group.add_argument(
        "--passages",
        action="store_true",
        help="rank documents by their best passage and the whole, and show that passage",
    )
    group.add_argument(
        "--passage-tokens",
        type=int,
        metavar="N",
        help=f"tokens of a passage at most, where texts are given (default: {_SEARCHED_TOKENS})",
    )


def document_options(arguments: argparse.Namespace) -> PassageOptions | None:
    """How the texts that are searched are split; None: they are not.

    Raises:
        OptionError: an option of passages is given without --passages.
    """
    tokens: int | None = arguments.passage_tokens
    if arguments.passages:
        return PassageOptions(_SEARCHED_TOKENS if tokens is None else tokens, with_document=True)
    if tokens is not None:
        raise OptionError("expected --passages together with --passage-tokens; add it")
    return None
