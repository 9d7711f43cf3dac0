"""`embedge verify`: whether a file gives its own vectors on this machine."""

import argparse
from dataclasses import asdict
from pathlib import Path

from embedge.cli.info import add_file_argument
from embedge.cli.options import model_path
from embedge.cli.streams import print_json, say
from embedge.cli.survey import survey
from embedge.corpus.output import OUTPUT_SUFFIXES
from embedge.corpus.saved import verify_vectors
from embedge.encoder import Encoder
from embedge.modelfile.card import printable
from embedge.modelfile.default import default_model
from embedge.modelfile.file import ModelFile, read
from embedge.ort.probes import MIN_COSINE, verify
from embedge.ort.providers import wheel_conflict

EXAMPLES = """examples:
  embedge verify
  embedge verify my-model.onnx && echo "this machine gives the right vectors"
  embedge verify my-model.onnx --providers all
  embedge verify vectors.npy
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge verify`."""
    parser.epilog = EXAMPLES
    add_file_argument(parser)
    parser.add_argument(
        "--providers",
        default="auto",
        metavar="NAME",
        help="auto, cpu, cuda, ... (default: auto), or all: a table of every one that is here",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print each probe's cosines; returns 0 where all pass, else 1.

    A file of vectors is checked against its metadata instead; raises CorpusError where it differs.
    """
    if arguments.file is not None and arguments.file.suffix.lower() in OUTPUT_SUFFIXES:
        return _verify_vectors(arguments.file, arguments.json)
    file = read(model_path(arguments.file) or default_model())
    if arguments.providers == "all":
        return _survey(file, arguments.json)
    result = verify(file, Encoder(file.path, providers=arguments.providers))
    if arguments.json:
        print_json(result.describe(), indent=2)
        return 0 if result.holds else 1
    print("file's own  source fp32  text")
    for probe in result.probes:
        text = probe.text if len(probe.text) <= 60 else probe.text[:57] + "..."
        print(f"{probe.output:10.6f}  {probe.reference:11.6f}  {printable(text)}")
    word = "passed" if result.holds else "FAILED"
    print(f"The probes {word}: cosine to the file's own vectors at least {MIN_COSINE}.")
    if not result.holds:
        print(f"This machine gives {result.difference()}.")
    return 0 if result.holds else 1


def _verify_vectors(path: Path, as_json: bool) -> int:
    metadata = verify_vectors(path)
    if as_json:
        print_json(asdict(metadata), indent=2)
    else:
        print(
            f"{printable(path)}: {metadata.rows:,} vectors of {printable(metadata.model)}, as they "
            "were written: their checksums match."
        )
    return 0


def _survey(file: ModelFile, as_json: bool) -> int:
    conflict = wheel_conflict()
    if conflict:
        say(conflict)
    trials = survey(file)
    if as_json:
        print_json([asdict(trial) for trial in trials], indent=2)
    else:
        print(f"{'provider':12}  {'cosine':>8}  {'load s':>7}  {'texts/s':>8}")
        for trial in trials:
            figures = (trial.cosine, trial.load_s, trial.texts_per_s)
            shown = zip(figures, ("8.6f", "7.2f", "8.0f"), ("8", "7", "8"), strict=True)
            cells = [f"{'-':>{width}}" if x is None else f"{x:{form}}" for x, form, width in shown]
            print("  ".join([f"{trial.provider:12}", *cells, trial.problem]).rstrip())
    return 1 if any(trial.problem for trial in trials) else 0
