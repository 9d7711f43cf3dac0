#!/usr/bin/env python3
"""Check that a model file gives the same vectors on other CPUs.

Runs the runtime of this checkout with the real aarch64 wheels on Arm CPUs, and with this Python on
an x86 CPU without VNNI, all under QEMU user emulation, and compares the vectors with this
machine's. Needs an x86-64 Debian machine and an environment with embedge's dependencies and pip.

    scripts/check_portability
    scripts/check_portability --cpu haswell --cpu cortex-a72
    python scripts/check_portability/mixed.py mixed.onnx    makes a small file of every precision
    scripts/check_portability --model mixed.onnx

The first run downloads about 100 MB into the cache folder. Exit status 1 if a vector is out of
bounds: bit-identical on x86; a mean cosine of 0.9998 and a minimum of 0.999 on Arm, where the
fp32 kernels differ in the last bit and int8 rounding flips.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from emulators import CPUS, DEPENDENCIES, PROJECT, Emulators
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Bound = Literal["bits", "cosine"]

MODEL = PROJECT / "models/all-MiniLM-L6-v2/all-MiniLM-L6-v2.int8.onnx"
CACHE = PROJECT / ".portability"
MIN_MEAN, MIN_COSINE = 0.9998, 0.999
# CPU features that select the int8 kernels on x86, named as in /proc/cpuinfo.
INT8_FLAGS = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8")
# What is compared on the reference machine itself: note, two of the worker's arrays, bound. The
# last two rows have no bound; where they differ, the products saturate on this machine.
REFERENCE_ROWS: tuple[tuple[str, str, str, Bound | None], ...] = (
    ("one by one and in one batch", "single", "batch", "bits"),
    ("`session.x64quantprecision=0`", "plain", "plain", None),
    ("`session.x64quantprecision=1`", "precise", "precise", None),
)


@dataclass(frozen=True)
class Row:
    """How one CPU's vectors compare with the reference.

    Attributes:
        digest: of the vectors; equal digests mean equal bits.
        holds: whether the vectors are within their bound; None without one.
        seconds: how long it took, start-up included.
    """

    cpu: str
    note: str
    mean_cosine: float
    min_cosine: float
    largest_difference: float
    bit_identical: bool
    digest: str
    holds: bool | None
    seconds: float | None


def main() -> int:
    arguments = parse_arguments()
    if not arguments.model.is_file():
        raise SystemExit(f"check_portability: {arguments.model}: there is no such file")
    start = time.monotonic()
    try:
        emulators = Emulators(arguments.cache)
        setup = time.monotonic() - start
        names = arguments.cpu or list(CPUS)
        rows, fp32 = measure(emulators, arguments.model, names)
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        raise SystemExit(f"{error.stderr}\ncheck_portability: {command}: failed") from None
    measured = {row.cpu for row in rows}
    report = {
        "model": arguments.model.name,
        "reference": host(),
        "emulator": f"QEMU {emulators.qemu_version}",
        "versions": {name: version(name) for name in DEPENDENCIES},
        "setup_seconds": round(setup, 1),
        "probes_to_fp32": {"mean": float(fp32.mean()), "min": float(fp32.min())},
        "rows": [asdict(row) for row in rows],
        "crashed": [name for name in names if name not in measured],
    }
    print(markdown(report, rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(bool(report["crashed"]) or any(row.holds is False for row in rows))


def parse_arguments() -> argparse.Namespace:
    description, _, rest = (__doc__ or "").partition("\n\n")
    form = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    form.add_argument("--model", type=Path, default=MODEL, help="model file (the default model)")
    form.add_argument("--cache", type=Path, default=CACHE, help="folder for the emulators")
    form.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    form.add_argument("--cpu", action="append", choices=CPUS, help="only this one; may be repeated")
    return form.parse_args()


def measure(
    emulators: Emulators, model: Path, names: list[str]
) -> tuple[list[Row], NDArray[np.float32]]:
    """The rows of the table, and the cosines of the file's probes to fp32 on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "vectors.npz"
        emulators.run(None, model, out)
        here = dict(np.load(out))
        reference = np.concatenate([here["single"], here["single"]])  # (2 texts, dim)
        rows = []
        for note, first, second, bound in REFERENCE_ROWS:
            if first not in here:  # the option cannot load the file
                continue
            vectors = np.concatenate([here[first], here[second]])
            rows.append(compare("this machine", note, reference, vectors, bound))
        for name in names:
            cpu = CPUS[name]
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            start = time.monotonic()
            try:
                emulators.run(cpu, model, out)
            except subprocess.CalledProcessError as error:
                print(f"crashed: {error}\n{error.stderr[-2000:]}", file=sys.stderr)
                continue
            seconds = time.monotonic() - start
            print(f"{seconds:.0f} s", file=sys.stderr)
            there = dict(np.load(out))
            vectors = np.concatenate([there["single"], there["batch"]])  # (2 texts, dim)
            bound = "bits" if cpu.architecture == "x86_64" else "cosine"
            rows.append(compare(name, cpu.note, reference, vectors, bound, seconds))
    return rows, here["fp32"]


def compare(
    cpu: str,
    note: str,
    reference: Vectors,
    vectors: Vectors,
    bound: Bound | None,
    seconds: float | None = None,
) -> Row:
    """One row; both arrays are (n, dim)."""
    a, b = reference.astype(float), vectors.astype(float)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / lengths  # (texts,)
    mean, least = float(cosines.mean()), float(cosines.min())
    identical = reference.tobytes() == vectors.tobytes()
    holds = {"bits": identical, "cosine": mean >= MIN_MEAN and least >= MIN_COSINE}
    return Row(
        cpu=cpu,
        note=note,
        mean_cosine=mean,
        min_cosine=least,
        largest_difference=float(np.abs(a - b).max()),
        bit_identical=identical,
        digest=hashlib.sha256(vectors.tobytes()).hexdigest()[:8],
        holds=holds[bound] if bound else None,
        seconds=seconds and round(seconds, 1),
    )


def host() -> str:
    """This machine's CPU, with the features that select its int8 kernels."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    fields = dict(re.findall(r"^(model name|flags)\s*: (.*)$", cpuinfo, re.MULTILINE))
    flags = fields["flags"].split()
    has = ", ".join(flag for flag in INT8_FLAGS if flag in flags)
    lacks = ", ".join(flag for flag in INT8_FLAGS if flag not in flags)
    return f"{fields['model name']} with {has or 'none'} (without {lacks or 'none'})"


def markdown(report: dict[str, Any], rows: list[Row]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    fp32 = report["probes_to_fp32"]
    answers = {True: "yes", False: "**no**", None: ""}
    lines = [
        f"Model: {report['model']}. Reference: this machine, {report['reference']}. "
        f"There the file's probes have a cosine to fp32 of {fp32['mean']:.5f} (mean), "
        f"{fp32['min']:.5f} (minimum). {report['emulator']}; {versions}.",
        "",
        "| CPU | | mean cosine | minimum | largest difference | bit-identical | digest | in bounds "
        "| s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.cpu} | {row.note} | {row.mean_cosine:.6f} | {row.min_cosine:.6f} "
        f"| {row.largest_difference:.1g} | {'yes' if row.bit_identical else 'no'} "
        f"| {row.digest} | {answers[row.holds]} "
        f"| {'' if row.seconds is None else round(row.seconds)} |"
        for row in rows
    ]
    lines += [f"| {name} | crashed | | | | | | **no** | |" for name in report["crashed"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
