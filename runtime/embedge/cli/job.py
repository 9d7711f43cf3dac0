"""`embedge embed --output`: a corpus into a file of vectors."""

import argparse
from dataclasses import asdict
from pathlib import Path

from embedge.cli.reading import find_given
from embedge.cli.streams import print_json, say
from embedge.corpus.files import real_path
from embedge.corpus.inputs import Corpus
from embedge.corpus.job import JobOptions, embed_corpus
from embedge.corpus.journal import journal_path
from embedge.corpus.layout import LAYOUTS
from embedge.corpus.output import sidecar
from embedge.encoder import Encoder


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `embedge embed` takes for a job."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", type=Path, metavar="VECTORS", help="write the vectors to this file"
    )
    group.add_argument(
        "--dtype", choices=LAYOUTS, default="float32", help="of the output (default: float32)"
    )
    group.add_argument(
        "--force", action="store_true", help="overwrite a file that another job has left there"
    )


def run_job(arguments: argparse.Namespace, encoder: Encoder) -> int:
    """Embed files or standard input into ``arguments.output``."""
    output: Path = arguments.output
    corpus = Corpus(find_given(arguments, arguments.text, output), arguments.field, arguments.id)
    try:
        summary = embed_corpus(encoder, corpus, output, _options(arguments), progress=True)
    except KeyboardInterrupt:
        if journal_path(real_path(output)).exists():
            say("interrupted; rerun the same command to resume")
        raise
    if summary.unchanged:
        say(f"{output} holds the vectors of these rows already; nothing was written")
    if arguments.json:
        print_json(asdict(summary))
    if summary.truncated:
        say(f"{summary.truncated} texts were truncated to {encoder.max_tokens} tokens")
    if summary.skipped:
        say(f"{summary.skipped} rows were skipped: see {sidecar(output, 'skipped')}")
    return 0


def _options(arguments: argparse.Namespace) -> JobOptions:
    return JobOptions(
        dtype=arguments.dtype,
        prompt=arguments.prompt,
        overflow=arguments.overflow,
        on_error=arguments.on_error,
        force=arguments.force,
    )
