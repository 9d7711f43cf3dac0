"""`embedge embed --output`: a corpus into a file of vectors."""

import argparse
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from embedge.cli.passages import passage_options
from embedge.cli.reading import STDOUT, add_quiet_argument, find_given, say_skipped, say_truncated
from embedge.cli.streams import print_json, say
from embedge.cli.terminal import visible_json
from embedge.corpus.files import real_path
from embedge.corpus.inputs import Corpus
from embedge.corpus.job import JobOptions, Summary, embed_corpus
from embedge.corpus.journal import journal_path
from embedge.corpus.layout import LAYOUTS
from embedge.corpus.lines import embed_lines
from embedge.corpus.output import sidecar
from embedge.encoder import Encoder


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `embedge embed` takes for a job."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="VECTORS",
        help="write the vectors to this file, or - for lines of JSON",
    )
    group.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line: text, vector; with --output one in all: what was done",
    )
    group.add_argument(
        "--dtype", choices=LAYOUTS, default="float32", help="of the output (default: float32)"
    )
    group.add_argument(
        "--keep",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="fields or columns of the input to write with the vectors (not into .npy)",
    )
    group.add_argument(
        "--with-text", action="store_true", help="write the texts with the vectors as well"
    )
    group.add_argument(
        "--force", action="store_true", help="overwrite a file that this job has not written"
    )
    add_quiet_argument(group)


def run_job(arguments: argparse.Namespace, encoder: Encoder) -> int:
    """Embed files or standard input into ``arguments.output``, or as lines of JSON for "-"."""
    output: Path = arguments.output
    keep = list(arguments.keep)
    if arguments.with_text:
        keep.append(arguments.field or "text")
    sources = find_given(arguments, arguments.text, None if output == STDOUT else output)
    corpus = Corpus(sources, arguments.field, arguments.id, keep)
    if output == STDOUT:
        return _print_lines(arguments, encoder, corpus)
    try:
        summary = embed_corpus(
            encoder, corpus, output, _options(arguments), progress=not arguments.quiet
        )
    except KeyboardInterrupt:
        if journal_path(real_path(output)).exists():
            say("interrupted; rerun the same command to resume")
        raise
    if arguments.json:
        print_json(asdict(summary))
    if not arguments.quiet:
        _say_done(summary)
    say_truncated(encoder, summary.truncated)
    if summary.skipped:
        say(f"{summary.skipped} rows were skipped: see {sidecar(output, 'skipped')}")
    _say_absent(corpus)
    return 0


def _say_done(summary: Summary) -> None:
    if summary.unchanged:
        say(f"{summary.output} holds the vectors of these rows already; nothing was written")
        return
    rate = summary.texts / max(summary.seconds, 1e-3)
    say(
        f"{summary.texts:,} texts, {summary.tokens:,} tokens in {summary.seconds:.1f} s "
        f"({rate:,.0f} texts/s): {summary.output}"
    )


def _print_lines(arguments: argparse.Namespace, encoder: Encoder, corpus: Corpus) -> int:
    lines = embed_lines(
        encoder,
        corpus,
        _options(arguments),
        skipped=say_skipped,
        progress=not arguments.quiet,
    )
    with closing(lines):
        for line in lines:
            sys.stdout.write(visible_json(line.decode()))
            sys.stdout.flush()
    say_truncated(encoder)
    _say_absent(corpus)
    return 0


def _say_absent(corpus: Corpus) -> None:
    if corpus.absent:
        names = ", ".join(map(repr, sorted(corpus.absent)))
        say(f"no row has the field {names} that --keep names, so nothing was kept of it")


def _options(arguments: argparse.Namespace) -> JobOptions:
    return JobOptions(
        dtype=arguments.dtype,
        prompt=arguments.prompt,
        overflow=arguments.overflow,
        on_error=arguments.on_error,
        force=arguments.force,
        passages=passage_options(arguments),
    )
