#!/usr/bin/env python3
"""Measure embedge beside other libraries: same weights, same texts, same threads, same CPUs.

Makes an environment per library and converts the weights for each under .bench/ (some 8 GB, once),
then measures and writes bench.md, bench.json, bench.png and bench.svg. Needs Linux, two CPUs and
the evaluation data. A wheel of torch for the CPU saves gigabytes where pip is shown one
(PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL).
"""

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
import report
from environments import (
    CACHE,
    MODEL,
    ROOT,
    BenchError,
    ensure_environment,
    ensure_weights,
    python,
    say,
    size_mb,
)
from peers import BY_NAME, PEERS, Peer
from runner import FULL, QUICK, JobError, Plan, Runner, measure, scale

THREADS = 2


def main() -> int:
    options = _options()
    try:
        return _bench(options)
    except (BenchError, JobError, OSError, ValueError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few texts, under three minutes")
    parser.add_argument(
        "--part", type=float, default=1, help="share of each workload's texts (default 1)"
    )
    parser.add_argument("--scaling", action="store_true", help="also 10 to 100,000 texts")
    parser.add_argument(
        "--peers",
        help="comma-separated, default all: " + ", ".join(BY_NAME),
        default=",".join(BY_NAME),
    )
    parser.add_argument("--model", type=Path, default=ROOT / MODEL, help="our file")
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDGE_EVAL_DATA"))
    parser.add_argument("--output", type=Path, default=CACHE / "results")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or EMBEDGE_EVAL_DATA should name the folder of evaluation data")
    if not 0 < options.part <= 1:
        parser.error(f"--part should be above 0 and at most 1, but is {options.part:g}")
    unknown = set(options.peers.split(",")) - set(BY_NAME)
    if unknown:
        parser.error(
            f"no peer is named {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}"
        )
    return options


def _bench(options: argparse.Namespace) -> int:
    chosen = options.peers.split(",")
    peers = [peer for peer in PEERS if peer.name in chosen]
    model = options.model.resolve()
    if not model.is_file():
        raise BenchError(f"{model} is not there: export it, or name another with --model")
    data = options.data.resolve()
    cpus = machine.distinct_cpus(THREADS)
    weights = _prepare(peers, model, data)
    plan = QUICK if options.quick else FULL
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "settings": _settings(plan, options.quick),
        "peers": {},
        "failed": {},
        "scaling": [],
    }
    runner = Runner(weights, model, cpus)
    started = time.monotonic()
    with gzip.open(data / "throughput/workloads.json.gz", "rt", encoding="utf-8") as stream:
        workloads = json.load(stream)
    texts = {
        name: workloads[name][: count or max(32, round(len(workloads[name]) * options.part))]
        for name, count in plan.texts.items()
    }
    results["settings"]["texts"] = {name: len(part) for name, part in texts.items()}
    runs, results["failed"] = measure(runner, peers, plan, texts)
    if len(results["failed"]) == len(peers):
        raise BenchError(f"no peer could be measured: {results['failed']}")
    results["runs"] = runs
    results["peers"] = {
        peer.name: _describe(peer, weights, model) | report.summarize(runs[peer.name])
        for peer in peers
        if peer.name not in results["failed"]
    }
    if options.scaling:
        counts = (10, 1_000) if options.quick else (10, 1_000, 100_000)
        results["scaling"] = scale(runner, _sentences(data), counts)
    say(f"measured in {time.monotonic() - started:.0f} s")
    _write(results, options.output)
    return 1 if results["failed"] else 0


def _prepare(peers: list[Peer], model: Path, data: Path) -> Path:
    with (data / "stsb/train.tsv").open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        calibration = [row["sentence1"] for row in rows]
    weights = ensure_weights(peers, calibration)
    for environment in dict.fromkeys(["torch", "plot", *(peer.environment for peer in peers)]):
        ensure_environment(environment, model)
    return weights


def _settings(plan: Plan, quick: bool) -> dict[str, Any]:
    return {
        "quick": quick,
        "rounds": plan.rounds,
        "threads": THREADS,
        "idle_s": plan.idle_s,
        "when": time.strftime("%Y-%m-%d"),
    }


def _describe(peer: Peer, weights: Path, model: Path) -> dict[str, Any]:
    file = weights / peer.file if peer.file else model
    files = [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]
    return {
        "label": peer.label,
        "environment": peer.environment,
        "share": peer.share,
        "model_mb": sum(path.stat().st_size for path in files) / 2**20,
        "install_mb": size_mb(peer.environment),
    }


def _sentences(data: Path) -> list[str]:
    path = data / "throughput/sentences_100k.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        next(stream)
        return [line.rstrip("\n").split("\t", 1)[1] for line in stream]


def _write(results: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "bench.md").write_text(report.markdown(results), "utf-8")
    path = output / "bench.json"
    path.write_text(json.dumps(results, indent=1), "utf-8")
    images = [str(output / f"bench.{suffix}") for suffix in ("png", "svg")]
    script = str(Path(report.__file__).with_name("plot.py"))
    subprocess.run([str(python("plot")), "-P", script, str(path), *images], check=True)
    print(report.markdown(results))
    say(f"wrote bench.md, bench.json, bench.png and bench.svg to {output}")


if __name__ == "__main__":
    sys.exit(main())
