"""The command `embedge`. Results go to standard output, everything else to standard error."""

import argparse
import importlib
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, TextIO, get_args

from embedge import __version__
from embedge.cli import corpus
from embedge.encoder import Encoder
from embedge.errors import EmbedgeError, OptionError
from embedge.modelfile.card import card, printable
from embedge.modelfile.default import default_model
from embedge.modelfile.file import ModelFile, read
from embedge.text.overflow import Overflow, TruncationWarning

_EPILOGS = {
    "embed": """examples:
  embedge embed "A man is eating food."
  embedge embed --json < sentences.txt
  embedge embed --output vectors.npy < sentences.txt
  embedge embed articles.jsonl --field body --id url --output vectors.parquet
""",
    **corpus.EPILOGS,
    "info": """examples:
  embedge info
  embedge info my-model.onnx --json
  embedge info my-model.onnx --card > README.md
""",
    "verify": """examples:
  embedge verify
  embedge verify my-model.onnx && echo "this machine gives the right vectors"
""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 (verify: does not hold) or 2 (an error)."""
    with warnings.catch_warnings():  # which gives showwarning back as well
        warnings.showwarning = _show_warning
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # texts are read as UTF-8, and written so
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        parsed = _parser().parse_args(arguments)
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except EmbedgeError as error:
        print(f"embedge: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="embedge",
        description="Sentence vectors at the edge, from one quantized ONNX file.",
    )
    parser.add_argument("--version", action="version", version=f"embedge {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    embed = _command(commands, "embed", "make the vectors of texts, files or folders", _embed)
    embed.add_argument(
        "text",
        nargs="*",
        help="texts, or with --output files and folders; without any, standard input",
    )
    embed.add_argument("--model", type=Path, help="a model file (default: the one shipped)")
    embed.add_argument("--prompt", help="name of one of the model's prompts")
    embed.add_argument(
        "--overflow",
        choices=get_args(Overflow),
        default="truncate",
        help="what happens to texts longer than the model takes (default: truncate)",
    )
    embed.add_argument("--dim", type=int, help="keep this many leading components")
    embed.add_argument("--threads", type=int, help="default: what this process may use")
    embed.add_argument("--providers", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    embed.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line: text, vector; with --output one in all: what was done",
    )
    corpus.add_embed_arguments(embed)

    search = _command(commands, "search", "print the texts most like a query", corpus.run_search)
    corpus.add_search_arguments(search)
    duplicates = _command(
        commands, "duplicates", "print groups of near-duplicates", corpus.run_duplicates
    )
    corpus.add_duplicates_arguments(duplicates)

    info = _command(commands, "info", "say what is in a model file", _info)
    check = _command(commands, "verify", "run a file's probes on this machine", _verify)
    check.add_argument(
        "--providers",
        default="auto",
        help="auto, cpu, cuda, ... (default: auto), or all: a table of every one that is here",
    )
    form = info.add_mutually_exclusive_group()
    form.add_argument("--card", action="store_true", help="print a model card in Markdown")
    for command, options in ((info, form), (check, check)):
        command.add_argument("file", nargs="?", type=Path, help="default: the model shipped")
        options.add_argument("--json", action="store_true", help="print JSON")

    # The one reach upwards: the exporter is an extra, found only when asked for.
    for name, summary, module in (
        ("export", "make a model file of a sentence transformer", "cli"),
        ("compare", "say how far two model files agree", "compare"),
    ):
        exporter = importlib.import_module(f"embedge_export.{module}")
        exporter.add_arguments(_command(commands, name, summary, exporter.run))
    return parser


def _command(commands: Any, name: str, summary: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=_EPILOGS.get(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _embed(arguments: argparse.Namespace) -> int:
    encoder = Encoder(
        arguments.model,
        providers=arguments.providers,
        threads=arguments.threads,
        dim=arguments.dim,
    )
    if arguments.output is not None:
        return corpus.run_embed(arguments, encoder)
    corpus.check_no_job(arguments)
    options: dict[str, Any] = {"prompt": arguments.prompt, "overflow": arguments.overflow}
    texts = arguments.text or _lines(sys.stdin.buffer)
    kept: list[str] = []  # the texts read ahead of their vectors
    for vector in encoder.encode_iter(_keep(texts, kept), **options):
        text = kept.pop(0)
        if arguments.json:
            values = json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False)
        else:
            values = " ".join(f"{value:.6f}" for value in vector)
        print(values)
    if encoder.truncated:
        print(
            f"embedge: {encoder.truncated} texts were cut to {encoder.max_tokens} tokens",
            file=sys.stderr,
        )
    return 0


def _info(arguments: argparse.Namespace) -> int:
    file = read(arguments.file or default_model())
    if arguments.card:
        print(card(file), end="")
    elif arguments.json:
        print(json.dumps(file.describe(), indent=2, ensure_ascii=False))
    else:
        _print_tree(file.describe())
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from embedge.ort.probes import MIN_COSINE, verify  # with it onnxruntime, which not all need

    file = read(arguments.file or default_model())
    if arguments.providers == "all":
        return _survey(file, arguments.json)
    verdict = verify(file, Encoder(file.path, providers=arguments.providers))
    if arguments.json:
        print(json.dumps(verdict.describe(), indent=2, ensure_ascii=False))
        return 0 if verdict.holds else 1
    print("file's own  source fp32  text")
    for probe in verdict.probes:
        text = probe.text if len(probe.text) <= 60 else probe.text[:57] + "..."
        print(f"{probe.output:10.6f}  {probe.reference:11.6f}  {printable(text)}")
    word = "hold" if verdict.holds else "DO NOT HOLD"
    print(f"The probes {word}: cosine to the file's own vectors at least {MIN_COSINE}.")
    return 0 if verdict.holds else 1


def _survey(file: ModelFile, as_json: bool) -> int:
    from embedge.cli.survey import survey
    from embedge.ort.providers import wheel_conflict

    conflict = wheel_conflict()
    if conflict:
        print(f"embedge: {conflict}", file=sys.stderr)
    trials = survey(file)
    if as_json:
        print(json.dumps([asdict(trial) for trial in trials], indent=2, ensure_ascii=False))
    else:
        print(f"{'provider':12}  {'cosine':>8}  {'load s':>7}  {'texts/s':>8}")
        for trial in trials:
            figures = (trial.cosine, trial.load_s, trial.texts_per_s)
            shown = zip(figures, ("8.6f", "7.2f", "8.0f"), ("8", "7", "8"), strict=True)
            cells = [f"{'-':>{width}}" if x is None else f"{x:{form}}" for x, form, width in shown]
            print("  ".join([f"{trial.provider:12}", *cells, trial.problem]).rstrip())
    return 1 if any(trial.problem for trial in trials) else 0


def _lines(stream: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise OptionError(f"standard input, line {number}: not valid UTF-8 ({error})") from None


def _keep(texts: Sequence[str] | Iterator[str], kept: list[str]) -> Iterator[str]:
    for text in texts:
        kept.append(text)
        yield text


def _print_tree(value: dict[str, Any], indent: str = "") -> None:
    width = max((len(printable(key)) for key in value), default=0)
    for key, item in value.items():
        key = printable(key)
        if isinstance(item, dict) and item:
            print(f"{indent}{key}")
            _print_tree(item, indent + "  ")
        elif isinstance(item, (list, tuple)) and item:
            print(f"{indent}{key}")
            for element in item:
                print(f"{indent}  {printable(element) or '(empty text)'}")
        else:
            shown = "-" if item in ({}, [], (), None, "") else printable(item)
            print(f"{indent}{key:{width}}  {shown}")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if not issubclass(category, TruncationWarning):  # counted and said at the end
        print(f"embedge: {message}", file=sys.stderr)
