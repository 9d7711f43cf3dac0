"""How the commands read a corpus: its options, its sources, and stored vectors in its place."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from embedge.cli.options import model_path
from embedge.cli.streams import say, standard_input
from embedge.cli.terminal import visible
from embedge.corpus.encoding import OnError, RowOptions
from embedge.corpus.inputs import STDIN_FORMATS, Corpus, Source, find_sources, stream_source
from embedge.corpus.passages import PassageOptions
from embedge.corpus.rows import BadRow
from embedge.corpus.saved import check_fingerprint, open_vectors, read_metadata
from embedge.corpus.vectors import StoredVectors, embed_now
from embedge.encoder import Encoder
from embedge.errors import OptionError
from embedge.modelfile.default import default_model
from embedge.modelfile.file import read

READING = {"field": None, "id": None, "format": "txt", "on_error": "stop"}  # and the defaults
STDOUT = Path("-")


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how rows are read."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--field",
        "--column",
        metavar="NAME",
        help="field or column of the text (default: text)",
    )
    group.add_argument("--id", metavar="NAME", help="field or column of the id (default: none)")
    group.add_argument(
        "--format",
        choices=STDIN_FORMATS,
        default="txt",
        help="format of standard input (default: txt)",
    )
    group.add_argument(
        "--on-error",
        choices=get_args(OnError),
        default="stop",
        help="at a bad row, stop, or skip it and say so (default: stop)",
    )


def add_quiet_argument(group: argparse._ArgumentGroup) -> None:
    """Add --quiet."""
    group.add_argument(
        "-q", "--quiet", action="store_true", help="no progress and no count at the end"
    )


def add_corpus_argument(parser: argparse.ArgumentParser) -> None:
    """Add what is searched: texts, or vectors."""
    parser.add_argument(
        "corpus",
        nargs="+",
        help="files, folders, - for standard input, or one file of vectors made before",
    )


def refuse_given(
    arguments: argparse.Namespace, defaults: Mapping[str, str | bool | None], reason: str
) -> None:
    """Raise OptionError for the first option that is not at its default."""
    for name, default in defaults.items():
        if getattr(arguments, name) != default:
            raise OptionError(f"--{name.replace('_', '-')} {reason}")


def find_given(
    arguments: argparse.Namespace, given: Sequence[str], output: Path | None = None
) -> list[Source]:
    """The files and folders that ``given`` names; nothing, or "-", is standard input.

    Raises:
        OptionError: one of them does not exist.
    """
    given = given or ["-"]
    if given.count("-") > 1:
        raise OptionError("expected -, standard input, once at most: it can be read only once")
    missing = [name for name in given if name != "-" and not os.path.exists(name)]  # noqa: PTH110  # takes any text
    if missing:
        pattern = any(set("*?[") & set(name) for name in missing)
        hint = "; the shell has found no files for a pattern, give their folder" if pattern else ""
        raise OptionError(f"there is no such file or folder: {', '.join(missing)}{hint}")
    sources: list[Source] = []
    for name in given:
        if name == "-":
            sources.append(stream_source(standard_input(), arguments.format))
        else:
            sources += find_sources([Path(name)], output)
    return sources


def make_encoder(arguments: argparse.Namespace, dim: int | None = None) -> Encoder:
    """The Encoder that the options describe."""
    encoder = Encoder(
        model_path(arguments.model),
        providers=arguments.providers,
        threads=arguments.threads,
        dim=dim,
    )
    if dim is not None and dim not in (encoder.info["dim"], *encoder.info["matryoshka_dims"]):
        trained = ", ".join(map(str, encoder.info["matryoshka_dims"])) or "none but its own"
        say(
            f"the model was not trained to be truncated to --dim {dim}, which costs quality "
            f"({trained})"
        )
    return encoder


@contextmanager
def corpus_vectors(
    arguments: argparse.Namespace,
    passages: PassageOptions | None = None,
    check: Callable[[Encoder], object] = lambda encoder: None,
) -> Iterator[tuple[StoredVectors, Encoder | None]]:
    """The vectors of a corpus, and the Encoder if one was needed for them.

    Texts are split as ``passages`` says, unless it is None. ``check`` is given the Encoder before
    any of them is encoded.
    """
    paths = [Path(name) for name in arguments.corpus if name != "-"]
    stored = {path: known for path in paths if (known := read_metadata(path)) is not None}
    if not stored:
        encoder = make_encoder(arguments)
        check(encoder)
        sources = find_given(arguments, arguments.corpus)
        corpus = Corpus(sources, arguments.field, arguments.id)
        options = RowOptions(on_error=arguments.on_error, passages=passages)
        with embed_now(
            encoder, corpus, options, skipped=say_skipped, progress=not arguments.quiet
        ) as vectors:
            yield vectors, encoder
        return
    if len(arguments.corpus) > 1:
        raise OptionError(
            f"{next(iter(stored))} holds vectors; give one file of vectors, or only texts"
        )
    ((path, known),) = stored.items()
    refuse_given(arguments, READING, f"says how texts are read, but {path} holds vectors")
    if passages:
        reason = f"says how texts are split, but {path} holds vectors"
        refuse_given(arguments, {"passage_tokens": None}, reason)
    model = read(model_path(arguments.model) or default_model())
    check_fingerprint(path, known, model.settings.name, model.fingerprint)
    with open_vectors(path, known) as vectors:
        yield vectors, None


def one_line(*values: int | str | None) -> list[str]:
    """The values that are not None, each on one line and without control characters."""
    return [visible(" ".join(str(value).split())) for value in values if value is not None]


def say_truncated(encoder: Encoder, texts: int | None = None) -> None:
    """Report how many ``texts`` the model has not read to their ends; None is all of its own."""
    texts = encoder.truncated if texts is None else texts
    if texts:
        say(f"{texts} texts were truncated to {encoder.max_tokens} tokens")


def say_skipped(row: BadRow) -> None:
    """Report a skipped row and the reason."""
    say(f"skipped {row.file}, line {row.line}: {row.reason}")
