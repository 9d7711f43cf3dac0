"""`embedge embed --output`, `embedge search` and `embedge duplicates`."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from embedge.corpus.encoding import OnError
from embedge.corpus.inputs import (
    STDIN_FORMATS,
    Corpus,
    Source,
    find_sources,
    stream_source,
    text_source,
)
from embedge.corpus.job import embed_corpus
from embedge.corpus.layout import LAYOUTS
from embedge.corpus.output import sidecar
from embedge.corpus.rows import BadRow
from embedge.corpus.search import duplicates, search
from embedge.corpus.vectors import (
    StoredVectors,
    check_fingerprint,
    embed_now,
    facts_of,
    open_vectors,
)
from embedge.corpus.work import work_folder
from embedge.encoder import DOCUMENT_PROMPTS, Encoder
from embedge.errors import OptionError
from embedge.modelfile.default import default_model
from embedge.modelfile.file import read

EPILOGS = {
    "search": """examples:
  embedge search "a meal" sentences.txt
  embedge search "a meal" vectors.npy --top 3
""",
    "duplicates": """examples:
  embedge duplicates sentences.txt --threshold 0.9
  embedge duplicates vectors.npy --threshold 0.95 --json
""",
}


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how rows are read."""
    parser.add_argument(
        "--field",
        "--column",
        metavar="NAME",
        help="field or column of the text (default: text)",
    )
    parser.add_argument("--id", metavar="NAME", help="field or column of the id (default: none)")
    parser.add_argument(
        "--format",
        choices=STDIN_FORMATS,
        default="txt",
        help="format of standard input (default: txt)",
    )
    parser.add_argument(
        "--on-error",
        choices=get_args(OnError),
        default="stop",
        help="at a bad row, stop, or skip it and say so (default: stop)",
    )


def add_embed_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `embedge embed` takes besides for a job."""
    parser.add_argument("--output", type=Path, metavar="VECTORS", help="write to this file")
    parser.add_argument(
        "--dtype", choices=LAYOUTS, default="float32", help="of the output (default: float32)"
    )
    add_reading_arguments(parser)


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `embedge search` takes."""
    parser.add_argument("query", help="a text")
    _add_corpus_arguments(parser)
    parser.add_argument("--top", type=int, default=10, help="how many matches (default: 10)")


def add_duplicates_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `embedge duplicates` takes."""
    _add_corpus_arguments(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.95,
        help="similarity from which two texts are near-duplicates (default: 0.95)",
    )


def _add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "corpus",
        nargs="+",
        help="files, folders, - for standard input, or one file of vectors made before",
    )
    parser.add_argument("--model", type=Path, help="a model file (default: the one shipped)")
    parser.add_argument("--threads", type=int, help="default: what this process may use")
    parser.add_argument("--providers", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add_reading_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


_READING = {"field": None, "id": None, "format": "txt", "on_error": "stop"}  # and the defaults


def check_no_job(arguments: argparse.Namespace) -> None:
    """Raise OptionError for options of a job where there is no --output."""
    _refuse(arguments, {**_READING, "dtype": "float32"}, "is for files, which need --output too")


def _refuse(arguments: argparse.Namespace, defaults: dict[str, str | None], reason: str) -> None:
    """Raise OptionError for the first option that is not at its default."""
    for name, default in defaults.items():
        if getattr(arguments, name) != default:
            raise OptionError(f"--{name.replace('_', '-')} {reason}")


def run_embed(arguments: argparse.Namespace, encoder: Encoder) -> int:
    """Embed files, standard input or texts into ``arguments.output``."""
    output: Path = arguments.output
    corpus = Corpus(_sources(arguments, arguments.text, output), arguments.field, arguments.id)
    try:
        summary = embed_corpus(
            encoder,
            corpus,
            output,
            dtype=arguments.dtype,
            prompt=arguments.prompt,
            overflow=arguments.overflow,
            on_error=arguments.on_error,
            progress=True,
        )
    except KeyboardInterrupt:
        if work_folder(output).exists():
            _say("interrupted; run the same command again to go on where it was")
        raise
    if arguments.json:
        print(json.dumps(asdict(summary), ensure_ascii=False))
    if summary.truncated:
        _say(f"{summary.truncated} texts were cut to {encoder.max_tokens} tokens")
    if summary.skipped:
        _say(f"{summary.skipped} rows were skipped: see {sidecar(output, 'skipped')}")
    return 0


def run_search(arguments: argparse.Namespace) -> int:
    """Print the rows most like a query."""
    with _vectors(arguments) as (vectors, encoder):
        encoder = encoder or _encoder(arguments, vectors.dim)
        query = encoder.encode_query([arguments.query])
        (matches,) = search(query, vectors, arguments.top)
        found = vectors.find([match.row for match in matches])
        for match in matches:
            key, text = found[match.row]
            if arguments.json:
                _print_json({"score": match.score, "row": match.row, "id": key, "text": text})
            else:
                print("\t".join([f"{match.score:.4f}", *_shown(key, text)]))
    return 0


def run_duplicates(arguments: argparse.Namespace) -> int:
    """Print the groups of near-duplicates."""
    with _vectors(arguments) as (vectors, _):
        groups = duplicates(vectors, arguments.threshold)
        found = vectors.find([row for group in groups for row in group])
        for number, group in enumerate(groups):
            if arguments.json:
                ids, texts = zip(*(found[row] for row in group), strict=True)
                _print_json({"rows": group, "ids": ids, "texts": texts})
                continue
            if number:
                print()
            for row in group:
                print("\t".join(_shown(*found[row])))
    return 0


@contextmanager
def _vectors(arguments: argparse.Namespace) -> Iterator[tuple[StoredVectors, Encoder | None]]:
    """The vectors of a corpus, and the Encoder if one was needed for them."""
    paths = [Path(name) for name in arguments.corpus if name != "-"]
    facts = {path: known for path in paths if (known := facts_of(path)) is not None}
    if not facts:
        encoder = _encoder(arguments, None)
        prompts = encoder.info["prompts"]
        prompt = next((name for name in DOCUMENT_PROMPTS if name in prompts), None)
        sources = _sources(arguments, arguments.corpus)
        corpus = Corpus(sources, arguments.field, arguments.id)
        on_error: OnError = arguments.on_error
        with embed_now(
            encoder,
            corpus,
            prompt=prompt,
            on_error=on_error,
            skipped=_say_skipped,
            progress=True,
        ) as vectors:
            yield vectors, encoder
        return
    if len(arguments.corpus) > 1:
        raise OptionError(
            f"{next(iter(facts))} holds vectors; give one file of vectors, or only texts"
        )
    ((path, known),) = facts.items()
    _refuse(arguments, _READING, f"says how texts are read, but {path} holds vectors")
    model = read(arguments.model or default_model())
    check_fingerprint(path, known, model.settings.name, model.fingerprint)
    with open_vectors(path, known) as vectors:
        yield vectors, None


def _encoder(arguments: argparse.Namespace, dim: int | None) -> Encoder:
    return Encoder(
        arguments.model, providers=arguments.providers, threads=arguments.threads, dim=dim
    )


def _sources(
    arguments: argparse.Namespace, given: Sequence[str], output: Path | None = None
) -> list[Source]:
    """What ``given`` stands for.

    With an ``output``, arguments none of which exists as a file or folder are texts.
    """
    stdin = [stream_source(sys.stdin.buffer, arguments.format)]
    if not given:
        return stdin
    there = [name == "-" or os.path.exists(name) for name in given]  # noqa: PTH110  # takes any text
    if output is not None and not any(there):
        if arguments.field or arguments.id:
            raise OptionError(
                f"{given[0]}: there is no such file or folder, and texts have no fields"
            )
        return [text_source(given)]
    missing = ", ".join(name for name, exists in zip(given, there, strict=True) if not exists)
    if missing:
        raise OptionError(f"there is no such file or folder: {missing}")
    sources: list[Source] = []
    for name in given:
        sources += stdin if name == "-" else find_sources([Path(name)], output)
    return sources


def _shown(key: int | str, text: str | None) -> list[str]:
    """Id and text on one line."""
    return [" ".join(str(value).split()) for value in (key, text) if value is not None]


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _say_skipped(row: BadRow) -> None:
    _say(f"skipped {row.file}, line {row.line}: {row.reason}")


def _say(message: str) -> None:
    print(f"embedge: {message}", file=sys.stderr)
