#!/usr/bin/env python3
"""Load mutated model files: each is refused with ModelError or gives finite unit vectors.

    scripts/fuzz_modelfile                          a minute of them
    scripts/fuzz_modelfile --seconds 3600           an hour
    scripts/fuzz_modelfile --files 1000 --engine own    the same thousand in every run

Files that the reader accepts are loaded in another process with limits: a crash, a hang, more than
2 GB, a connection or another file opened end the run with status 1, and the mutant is kept in
--keep. The engine is atheris where it is installed (python -m pip install atheris), which keeps
mutants that reach new code of the reader; else our own, which keeps those that onnxruntime accepts,
or refuses with a new message.
"""

import argparse
import importlib.util
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path

DEFAULT_EVERY = 50  # one mutant in so many is of the model that ships with the package


def main() -> int:
    options = parse_arguments()
    installed = importlib.util.find_spec("atheris") is not None
    engine = options.engine or ("atheris" if installed else "own")
    if engine == "atheris":
        import atheris  # type: ignore[import-untyped]

        with atheris.instrument_imports(include=["embedge"]):
            import embedge.modelfile.file  # noqa: F401
    from fuzzing import seeds

    from embedge.modelfile.default import default_model

    fuzzer = Fuzzer(options, engine, seeds(), default_model().read_bytes())
    for data in (*fuzzer.corpus, fuzzer.default):
        if fuzzer.attempt(data) != "accepted":
            print("fuzz_modelfile: a file that is not mutated is not accepted", file=sys.stderr)
            fuzzer.finish(1)
    (run_own if engine == "own" else run_atheris)(fuzzer)
    return 0


def parse_arguments() -> argparse.Namespace:
    description, _, rest = (__doc__ or "").partition("\n\n")
    form = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    form.add_argument("--seconds", type=float, default=60)
    form.add_argument("--files", type=int, default=2**62, help="stop after so many")
    form.add_argument("--seed", type=int, default=0)
    form.add_argument(
        "--engine", choices=("atheris", "own"), help="default: atheris where it is installed"
    )
    form.add_argument("--keep", type=Path, default=Path(), help="folder for failing mutants (.)")
    return form.parse_args()


class Fuzzer:
    """Tries one file after the other until time or number is used up, or one breaks a promise."""

    def __init__(
        self, options: argparse.Namespace, engine: str, corpus: list[bytes], default: bytes
    ) -> None:
        from fuzzing import Oracle

        self.options, self.engine = options, engine
        self.corpus, self.default = corpus, default
        self.random = random.Random(options.seed)
        self._oracle = Oracle(options.keep)
        self._start = time.monotonic()

    def mutant(self, data: bytes, random: random.Random) -> bytes:
        from fuzzing import mutate

        changed: bytes = mutate(data, self.corpus, random)
        return changed

    def attempt(self, data: bytes) -> str:
        """The verdict on a file, and now and then a mutant of the default model as well."""
        from fuzzing import BrokenError

        done = self._oracle.counts["files"]
        late = time.monotonic() - self._start > self.options.seconds
        if late or done >= self.options.files:
            self.finish(0)
        try:
            if done % DEFAULT_EVERY == DEFAULT_EVERY - 1:
                self._oracle(self.mutant(self.default, self.random))
            return self._oracle(data)
        except BrokenError as error:
            print(f"fuzz_modelfile: {error}", file=sys.stderr)
            self.finish(1)
            raise

    def finish(self, status: int) -> None:
        """Print the figures and end the process: atheris would run until then."""
        seconds = time.monotonic() - self._start
        self._oracle.stop()
        print(f"{self._oracle.figures()}; {seconds:.0f} seconds, {self.engine}", flush=True)
        os._exit(status)


def run_own(fuzzer: Fuzzer) -> None:
    """Mutate until the process ends; a mutant with a verdict in new words joins the corpus."""
    seen: set[str] = set()
    while True:
        data = fuzzer.mutant(fuzzer.random.choice(fuzzer.corpus), fuzzer.random)
        verdict = fuzzer.attempt(data)
        words = re.sub(r"[0-9]+|'.*'|\(.*\)|\[.*\]", "", verdict)
        if words not in seen and not verdict.startswith("refused by the reader"):
            seen.add(words)
            fuzzer.corpus.append(data)


def run_atheris(fuzzer: Fuzzer) -> None:
    """Let atheris choose what to mutate, by the code that the reader runs."""
    import atheris

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(fuzzer.corpus):
            (Path(folder) / f"{number}.onnx").write_bytes(data)

        def custom(data: bytes, most: int, seed: int) -> bytes:
            return fuzzer.mutant(data, random.Random(seed))[:most]

        seed = fuzzer.options.seed + 1
        arguments = ["-max_len=65536", f"-seed={seed}", "-verbosity=0", "-timeout=120"]
        arguments += ["-report_slow_units=120"]  # else slow inputs are written into this folder
        atheris.Setup([sys.argv[0], *arguments, folder], fuzzer.attempt, custom_mutator=custom)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
