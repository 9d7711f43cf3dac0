#!/usr/bin/env python3
"""Quality, speed and memory of int8 on real models: plain, adapted, and the usual int8.

    python scripts/check_real_models --data FOLDER [--work FOLDER] [--only PART]... MODEL_FOLDER...

For each sentence-transformers folder: exports fp32, int8 as it is by default and int8 with a target
that plain int8 always meets; makes the usual int8 (onnxruntime's quantize_dynamic, s8 per
channel) of the fp32 file. --work keeps these files and all vectors in FOLDER/NAME, and reuses
them, so that an interrupted run resumes. Then it compares them and sentence-transformers:

    quality   Spearman x100 on STS-B and SICK dev; cosines to fp32, raw and centred; for each
              language of text/odd_text.jsonl the same, rank agreement of all pairs' cosines with
              fp32's, and how often a sentence finds its translation
    retrieval nDCG@10 x100 on SciFact's training queries, with --documents N of its documents: every
              relevant one, and the first of the others
    speed     texts per second, measured in turns: on an idle machine only
    memory    peak of a fresh process that loads the file, then encodes 512 sentences and 16
              long texts

Needs the export extra, on Linux or macOS. Exit status 1: the adapted file misses its target.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from encoders import Task, prepare
from parts import PARTS, peak_of

from embedge.modelfile.file import read


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with stsb/, sick/, text/")
    parser.add_argument("--work", type=Path, help="keep the exported files here, and reuse them")
    parser.add_argument(
        "--only", action="append", choices=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--documents", type=int, default=1500, metavar="N")
    parser.add_argument("--encode", nargs=2, help=argparse.SUPPRESS)  # what a process is to do
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL_FOLDER")
    arguments = parser.parse_args()
    if arguments.encode:
        name, folder = arguments.encode
        print(peak_of(name, Path(folder), arguments.models[0], arguments.data))
        return 0
    missed = 0
    with ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for model in arguments.models:
            folder = work / model.resolve().name
            folder.mkdir(parents=True, exist_ok=True)
            prepare(model, folder)
            report = read(folder / "int8.onnx").report["int8"]
            missed += not report["met"]
            print(f"## {folder.name}\n\n{json.dumps(report)}\n", flush=True)
            for part in arguments.only or PARTS:
                PARTS[part](Task(model, folder, arguments.data, arguments.documents))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
