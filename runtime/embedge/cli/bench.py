"""`embedge bench`: measure model files on this machine, and recommend one."""

import argparse
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from embedge.cli.measuring import Measurement, measure_apart
from embedge.cli.options import model_path
from embedge.cli.streams import print_json, say
from embedge.modelfile.card import printable
from embedge.modelfile.default import default_model
from embedge.ort.threads import available_cpus

EXAMPLES = """examples:
  embedge bench
  embedge bench model.int8.onnx model.fp32.onnx
  embedge bench model.fp16.onnx --providers cpu,cuda --json
"""
_SECONDS = 30.0  # spent on all figures together, loading not counted
_MOST_SECONDS = 2.0  # on one
_FIGURES = 5

# Heading, attribute, format: a row of the table for each.
_COLUMNS = (
    ("load s", "load_s", ".2f"),
    ("ms", "latency_ms", ".2f"),
    ("p95 ms", "latency_p95_ms", ".2f"),
    ("short/s 1", "short_1", ".0f"),
    ("all", "short_all", ".0f"),
    ("long/s 1", "long_1", ".1f"),
    ("all", "long_all", ".1f"),
    ("MB", "peak_mb", ".0f"),
    ("cosine", "cosine", ".4f"),
    ("to fp32", "cosine_fp32", ".4f"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge bench`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "file",
        nargs="*",
        type=Path,
        help="model files (default: $EMBEDGE_MODEL, or the one that ships with embedge)",
    )
    parser.add_argument(
        "--providers",
        default="cpu",
        metavar="NAMES",
        help="each file is measured on each of these, separated by commas (default: cpu)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns 1 where a file has no figures or gives wrong vectors."""
    files = arguments.file or [model_path(None) or default_model()]
    pairs = [(file, name.strip()) for file in files for name in arguments.providers.split(",")]
    seconds = min(_MOST_SECONDS, _SECONDS / (_FIGURES * len(pairs)))
    found = []
    for number, (file, provider) in enumerate(pairs, 1):
        say(f"measuring {number} of {len(pairs)}: {printable(file.name)} on {provider}")
        found.append(measure_apart(file, provider, seconds))
    best = choose(found)
    if arguments.json:
        machine = {
            "system": platform.system(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "threads": available_cpus(),
        }
        print_json(
            {
                "machine": machine,
                "measurements": [asdict(measurement) for measurement in found],
                "best": None if best is None else found.index(best),
            },
            indent=2,
        )
    else:
        _print_table(found)
        print(advice(found, best))
    return 1 if any(measurement.problem for measurement in found) else 0


def choose(found: Sequence[Measurement]) -> Measurement | None:
    """The file that encodes most at all threads, short and long texts weighing the same."""
    return max((m for m in found if not m.problem), key=_speed, default=None)


def _speed(measurement: Measurement) -> float:
    assert measurement.short_all is not None
    assert measurement.long_all is not None
    return float((measurement.short_all * measurement.long_all) ** 0.5)


def advice(found: Sequence[Measurement], best: Measurement | None) -> str:
    """One line: which file to take on this machine, and why."""
    if best is None:
        return "None of them works here; the reasons are above."
    name = f"{printable(Path(best.file).name)} on {best.provider}"
    others = [m for m in found if m is not best and not m.problem]
    if not others:
        return f"Take {name}: the only one measured that works here."
    second = max(others, key=_speed)
    times = _speed(best) / _speed(second)
    line = (
        f"Take {name}: {times:.2f} times the texts per second of "
        f"{printable(Path(second.file).name)} on {second.provider}"
    )
    if best.cosine_fp32 is not None:
        line += f", cosine to fp32 {best.cosine_fp32:.4f}"
    quick = min([best, *others], key=lambda m: m.latency_ms or 0)
    if quick is not best:
        line += (
            f"; for single texts {printable(Path(quick.file).name)} on {quick.provider} is faster"
        )
    return f"{line}."


def _print_table(found: Sequence[Measurement]) -> None:
    widths = [max(len(heading), 7) for heading, _, _ in _COLUMNS]
    headings = [
        f"{heading:>{width}}" for (heading, _, _), width in zip(_COLUMNS, widths, strict=True)
    ]
    print("  ".join([*headings, "file, provider"]))
    for measurement in found:
        cells = []
        for (_, name, form), width in zip(_COLUMNS, widths, strict=True):
            value = getattr(measurement, name)
            cells.append(f"{'-' if value is None else format(value, form):>{width}}")
        place = f"{printable(Path(measurement.file).name)}, {measurement.provider}"
        print(
            "  ".join([*cells, f"{place}: {measurement.problem}" if measurement.problem else place])
        )
