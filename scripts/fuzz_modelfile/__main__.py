#!/usr/bin/env python3
"""Load mutated model files: each is refused with ModelError or gives finite unit vectors.

    scripts/fuzz_modelfile                          a minute of them
    scripts/fuzz_modelfile --seconds 3600           an hour
    scripts/fuzz_modelfile --files 1000 --engine own    the same thousand in every run

What the reader passes is loaded in another process with limits: a crash, a hang, more than 2 GB, a
connection or another file opened end the run with status 1, and the mutant is kept in --keep.
The engine is atheris where it is installed (python -m pip install atheris), which keeps mutants
that reach code of the reader that none has reached before; else our own, which keeps those that
onnxruntime accepts or refuses with words not seen before.
"""

import argparse
import importlib.util
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DEFAULT_EVERY = 50  # one mutant in so many is of the model that ships with the package


def main() -> int:
    description, _, rest = (__doc__ or "").partition("\n\n")
    form = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    form.add_argument("--seconds", type=float, default=60)
    form.add_argument("--files", type=int, default=2**62, help="stop after so many")
    form.add_argument("--seed", type=int, default=0)
    form.add_argument("--engine", choices=("atheris", "own"), help="default: what there is")
    form.add_argument("--keep", type=Path, default=Path(), help="folder for what breaks us (.)")
    options = form.parse_args()
    there = importlib.util.find_spec("atheris") is not None
    engine = options.engine or ("atheris" if there else "own")
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["embedge"]):
            import embedge.modelfile.file  # noqa: F401
    from fuzzing import BrokenError, Judge, mutate, seeds

    from embedge.modelfile.default import default_model

    judge, corpus, chance = Judge(options.keep), seeds(), random.Random(options.seed)
    default = default_model().read_bytes()
    start = time.monotonic()

    def finish(status: int) -> None:
        seconds = time.monotonic() - start
        judge.stop()
        print(f"{judge.figures()}; {seconds:.0f} seconds, {engine}", flush=True)
        os._exit(status)  # atheris runs until the process ends

    def attempt(data: bytes) -> str:
        if time.monotonic() - start > options.seconds or judge.counts["files"] >= options.files:
            finish(0)
        try:
            if judge.counts["files"] % DEFAULT_EVERY == DEFAULT_EVERY - 1:
                judge(mutate(default, corpus, chance))
            return judge(data)
        except BrokenError as error:
            print(f"fuzz_modelfile: {error}", file=sys.stderr)
            finish(1)
            raise

    for data in (*corpus, default):
        if attempt(data) != "accepted":
            print("fuzz_modelfile: a file that is not mutated is not accepted", file=sys.stderr)
            finish(1)
    if engine == "own":
        run_own(attempt, lambda data: mutate(data, corpus, chance), corpus, chance)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(corpus):
            (Path(folder) / f"{number}.onnx").write_bytes(data)

        def custom(data: bytes, most: int, seed: int) -> bytes:
            mutant: bytes = mutate(data, corpus, random.Random(seed))
            return mutant[:most]

        arguments = ["-max_len=65536", f"-seed={options.seed + 1}", "-verbosity=0", "-timeout=120"]
        arguments += ["-report_slow_units=120"]  # else slow ones are files in this folder
        atheris.Setup([sys.argv[0], *arguments, folder], attempt, custom_mutator=custom)
        atheris.Fuzz()
    return 0


def run_own(
    attempt: Callable[[bytes], str],
    mutant: Callable[[bytes], bytes],
    corpus: list[bytes],
    chance: random.Random,
) -> None:
    """Mutate until `attempt` ends the process; what is judged in new words joins the corpus."""
    seen: set[str] = set()
    while True:
        data = mutant(chance.choice(corpus))
        verdict = attempt(data)
        words = re.sub(r"[0-9]+|'.*'|\(.*\)|\[.*\]", "", verdict)
        if words not in seen and not verdict.startswith("refused by the reader"):
            seen.add(words)
            corpus.append(data)


if __name__ == "__main__":
    sys.exit(main())
