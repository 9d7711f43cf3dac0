#!/usr/bin/env python3
"""Compare embedge with other libraries: same weights, same texts, same threads, same CPUs.

Makes an environment per library and converts the weights for each under .bench/ (some 8 GB, once),
then measures and writes bench.md, bench.json, bench.png and bench.svg. Needs Linux, two CPUs and
the evaluation data. A CPU-only wheel of torch saves gigabytes where pip can find one
(PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL).
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
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
from peers import BY_NAME, DEFAULT, PEERS, Peer
from runner import FULL, QUICK, JobError, Plan, Runner, measure, scale

THREADS = 2
OURS = report.OURS


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
    parser.add_argument("--rounds", type=int, help="default 3, quick 1")
    parser.add_argument(
        "--more", action="store_true", help="add rounds to the results that --output has"
    )
    parser.add_argument("--scaling", action="store_true", help="also 10 to 100,000 texts")
    parser.add_argument(
        "--peers",
        help="comma-separated, default all that have the model: " + ", ".join(BY_NAME),
    )
    parser.add_argument("--model", type=Path, default=ROOT / MODEL, help="our file")
    parser.add_argument(
        "--weights",
        type=Path,
        help="its source, a folder of sentence-transformers (default: that of " + DEFAULT + ")",
    )
    parser.add_argument("--prompt", default="", help="what every text begins with")
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDGE_EVAL_DATA"))
    parser.add_argument("--output", type=Path, default=CACHE / "results")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or EMBEDGE_EVAL_DATA should name the folder of evaluation data")
    if not 0 < options.part <= 1:
        parser.error(f"expected --part above 0 and at most 1, got {options.part:g}")
    unknown = set((options.peers or OURS).split(",")) - set(BY_NAME)
    if unknown:
        parser.error(
            f"no peer is named {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}"
        )
    return options


def _bench(options: argparse.Namespace) -> int:
    model, data = options.model.resolve(), options.data.resolve()
    if not model.is_file():
        raise BenchError(f"{model} is not there: export it, or name another with --model")
    name = options.weights.resolve().name if options.weights else DEFAULT
    peers = _peers(options.peers, name)
    cpus = machine.distinct_cpus(THREADS)
    weights = _prepare(peers, options, model, data)
    plan = QUICK if options.quick else FULL
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    texts = _texts(data, plan, options)
    settings = _settings(options, plan, name, {key: len(part) for key, part in texts.items()})
    results = _results(options, settings)
    runner = Runner(weights, model, cpus)
    started = time.monotonic()
    results["failed"] |= measure(runner, peers, plan, texts, results["runs"])
    if not results["runs"]:
        raise BenchError(f"no peer could be measured: {results['failed']}")
    results["peers"] = {
        peer.name: _describe(peer, weights, model) | report.summarize(results["runs"][peer.name])
        for peer in PEERS
        if peer.name in results["runs"]
    }
    if options.scaling:
        counts = (10, 1_000) if options.quick else (10, 1_000, 100_000)
        results["scaling"] = scale(runner, _sentences(data), counts)
    say(f"measured in {time.monotonic() - started:.0f} s")
    _write(results, options.output)
    return 1 if results["failed"] else 0


def _peers(chosen: str | None, model: str) -> list[Peer]:
    if chosen is None:
        return [peer for peer in PEERS if peer.only in ("", model)]
    return [peer for peer in PEERS if peer.name in chosen.split(",")]


def _texts(data: Path, plan: Plan, options: argparse.Namespace) -> dict[str, list[str]]:
    """The texts of each workload."""
    with gzip.open(data / "throughput/workloads.json.gz", "rt", encoding="utf-8") as stream:
        workloads = json.load(stream)
    counts = {
        name: count or max(32, round(len(workloads[name]) * options.part))
        for name, count in plan.texts.items()
    }
    return {
        name: [options.prompt + text for text in workloads[name][:count]]
        for name, count in counts.items()
    }


def _results(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """The results of earlier runs if they are wanted, or none."""
    here = machine.describe()
    path = options.output / "bench.json"
    if not (options.more and path.is_file()):
        return {"machine": here, "settings": settings, "runs": {}, "failed": {}, "scaling": []}
    results: dict[str, Any] = json.loads(path.read_text("utf-8"))
    known = results["settings"]
    same = results["machine"]["cpu"] == here["cpu"] and all(
        known[name] == settings[name] for name in settings if name not in ("rounds", "when")
    )
    if not same:
        raise BenchError(f"{path} was measured with other options or elsewhere; leave out --more")
    known["rounds"] += settings["rounds"]
    return results


def _prepare(peers: list[Peer], options: argparse.Namespace, model: Path, data: Path) -> Path:
    with (data / "stsb/train.tsv").open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        calibration = [row["sentence1"] for row in rows]
    weights = ensure_weights(options.weights and options.weights.resolve(), peers, calibration)
    for environment in dict.fromkeys(["torch", "plot", *(peer.environment for peer in peers)]):
        ensure_environment(environment, model)
    return weights


def _settings(
    options: argparse.Namespace, plan: Plan, name: str, texts: dict[str, int]
) -> dict[str, Any]:
    return {
        "model": name,
        "file_sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
        "prompt": options.prompt,
        "quick": options.quick,
        "texts": texts,
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
