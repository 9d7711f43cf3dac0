#!/usr/bin/env python3
"""Build bundles of a small program with each bundler, run them, and compare their sizes.

    python scripts/check_bundles                        all but Nuitka
    python scripts/check_bundles --only pyinstaller --only cx_Freeze
    python scripts/check_bundles --only nuitka          which compiles for 10 to 40 minutes

Each bundle is moved to another folder, where only reading is allowed, and run from / as an
unprivileged user without a HOME, without any environment variable and without a network. It must
print the vector that the installed package gives and contain the licenses and none of the
libraries that are never run. Needs Linux, Python 3.11 or newer with pip, and for Nuitka gcc and
patchelf. --keep FOLDER keeps the environment and the bundles for the next call.

Prints a table: MB on the disk, seconds from start to the first vector (best of five) and the peak
memory; measure on an idle machine. Exit status 1: a bundle is wrong.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bundlers import BUNDLERS, NEVER_RUN, Bundler, Environment
from sandbox import size_mb, start

HERE = Path(__file__).resolve().parent
RUNS = 5


def main() -> int:
    arguments = parse_arguments()
    with ExitStack() as stack:
        work = arguments.keep or stack.enter_context(tempfile.TemporaryDirectory())
        work.mkdir(parents=True, exist_ok=True)
        work.chmod(0o755)  # an unprivileged user is to read it
        environment = Environment(work.resolve())
        environment.install_checkout()
        expected = json.loads(environment.python(HERE / "app.py"))["vector"]
        chosen = [b for b in BUNDLERS if b.name in arguments.only or not (arguments.only or b.slow)]
        print(f"{'bundle':28}  {'MB':>5}  {'start s':>7}  {'peak MB':>7}  problems", flush=True)
        problems = [problem for b in chosen for problem in check(b, environment, expected)]
    return 1 if problems else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [bundler.name for bundler in BUNDLERS]
    parser.add_argument("--only", action="append", choices=names, default=[])
    parser.add_argument("--keep", type=Path)
    return parser.parse_args()


def check(bundler: Bundler, environment: Environment, expected: list[float]) -> list[str]:
    """Build and run one bundle, print its line of the table; what is wrong with it."""
    requirements = [bundler.requirement] if bundler.requirement else []
    environment.install(*requirements)
    bundle, program = bundler.build(environment)
    runs = [start(program, bundler.variables, frozen=bundler.frozen) for _ in range(RUNS)]
    problems = [run.problem for run in runs if run.problem][:1]
    if not problems:
        problems += [f"status {run.status}: {run.error}" for run in runs if run.status][:1]
    answers = [json.loads(run.output) for run in runs if not problems]
    if any(answer.get("vector", expected) != expected for answer in answers):
        problems.append("other vectors than the installed package's")
    if bundle.is_dir():
        names = {path.name for path in bundle.rglob("*")}
        problems += [f"contains {name}" for name in NEVER_RUN if name in names]
        if bundler.licenses and not any(bundle.rglob("*embedge*/licenses/LICENSE")):
            problems.append("has no license texts")
    if not problems:
        problems += bundler.further(environment, program)
    best = f"{min(run.seconds for run in runs):.2f}" if answers else "-"
    peak = max((answer.get("peak_mb", 0.0) for answer in answers), default=0.0)
    cells = f"{size_mb(bundle):5.0f}  {best:>7}  {f'{peak:.0f}' if peak else '-':>7}"
    told = "; ".join(" / ".join(problem.splitlines()) for problem in problems)
    print(f"{bundler.title:28}  {cells}  {told or 'none'}", flush=True)
    return problems


if __name__ == "__main__":
    sys.exit(main())
