"""Runs jobs of worker.py, each in a process of its own, pinned, interleaved over the peers."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environments import CACHE, python, quiet_environ, say
from peers import BY_NAME, Peer

WORKLOADS = ("short", "mixed", "docs")
_WORKER = Path(__file__).parent / "worker.py"
_LIMIT_S = 1800


@dataclass(frozen=True)
class Plan:
    """How much is measured. A group of workloads shares a process, in its order."""

    texts: dict[str, int | None]
    rounds: int
    groups: tuple[tuple[str, ...], ...]
    latencies: int
    repeat_s: float
    idle_s: float = 3
    quality: dict[str, int] = field(default_factory=lambda: {"short": 120, "mixed": 40, "docs": 40})


FULL = Plan(
    texts=dict.fromkeys(WORKLOADS),
    rounds=3,
    groups=tuple((name,) for name in WORKLOADS),
    latencies=100,
    repeat_s=0,
)
# One process per peer for everything: a quick run spends most of its time starting peers.
QUICK = Plan(
    texts={"short": 128, "mixed": 64, "docs": 16},
    rounds=1,
    groups=(WORKLOADS,),
    latencies=20,
    repeat_s=0.5,
    idle_s=2,
    quality={"short": 48, "mixed": 8, "docs": 8},
)


class JobError(Exception):
    """A worker failed; the message is the end of its output."""


class Runner:
    """Starts workers on ``threads`` CPUs; keeps the texts and the reference they share."""

    def __init__(self, weights: Path, model: Path, cpus: Sequence[int]) -> None:
        self._weights, self._model, self._cpus = weights, model, list(cpus)
        self._scratch = tempfile.TemporaryDirectory(dir=CACHE)
        self._folder = Path(self._scratch.name)
        self.reference: Path | None = None

    def write_texts(self, name: str, texts: dict[str, list[str]]) -> Path:
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(texts), "utf-8")
        return path

    def run(
        self,
        peer: Peer,
        texts: Path,
        workloads: Sequence[str],
        *,
        threads: int | None = None,
        adapter: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Run one job; raises JobError where the worker fails or takes half an hour."""
        threads = threads or len(self._cpus)
        result = self._folder / "result.json"
        result.unlink(missing_ok=True)
        job = {
            "adapter": adapter or peer.adapter,
            "model": str(self._weights / peer.file if peer.file else self._model),
            "threads": threads,
            "texts": str(texts),
            "workloads": list(workloads),
            "result": str(result),
            **{"latency": 0, "idle_s": 0, "repeat_s": 0, "reference": None, "save": None},
            **options,
        }
        cpus = self._cpus[:threads]
        job["started"] = time.monotonic()
        done = _pinned([str(python(peer.environment)), "-P", str(_WORKER), json.dumps(job)], cpus)
        if done.returncode or not result.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise JobError(lines[-1] if lines else f"ended with {done.returncode}")
        return json.loads(result.read_text())

    def make_reference(self, texts: Path) -> None:
        """Vectors of the texts named "quality", by sentence-transformers with torch in fp32."""
        say("encoding the quality texts with the fp32 source")
        path = self._folder / "reference.npy"
        self.run(BY_NAME["st-torch"], texts, (), save=str(path))
        self.reference = path


def _pinned(command: list[str], cpus: Sequence[int]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            env=quiet_environ(len(cpus)),
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise JobError(f"no result in {_LIMIT_S // 60} minutes") from None


Runs = dict[str, list[dict[str, Any]]]


def measure(
    runner: Runner, peers: Sequence[Peer], plan: Plan, texts: dict[str, list[str]], runs: Runs
) -> dict[str, str]:
    """Add all rounds over all peers to ``runs``; return why some could not be measured."""
    quality = [text for name, count in plan.quality.items() for text in _spread(texts[name], count)]
    files = {
        share: runner.write_texts(
            f"texts-{share}",
            {**{name: _share(part, share) for name, part in texts.items()}, "quality": quality},
        )
        for share in {peer.share for peer in peers}
    }
    if any(peer.name not in runs for peer in peers):
        runner.make_reference(next(iter(files.values())))
    failed: dict[str, str] = {}
    for number in range(plan.rounds):
        for place, group in enumerate(plan.groups):
            for peer in peers:
                if peer.name in failed:
                    continue
                say(f"round {number + 1}/{plan.rounds}, {' '.join(group)}: {peer.name}")
                first = peer.name not in runs
                options = {
                    "latency": plan.latencies if place == 0 else 0,
                    "repeat_s": plan.repeat_s,
                    "idle_s": plan.idle_s if first else 0,
                    "reference": str(runner.reference) if first else None,
                }
                try:
                    run = runner.run(peer, files[peer.share], group, **options)
                except JobError as error:
                    say(f"{peer.name}: {error}")
                    failed[peer.name] = str(error)
                else:
                    runs.setdefault(peer.name, []).append(run)
    return failed


def scale(runner: Runner, texts: list[str], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Throughput and memory of embedge's `encode_iter`, which keeps no vector."""
    peer = BY_NAME["embedge"]
    rows = []
    for count in counts:
        file = runner.write_texts("scaling", {"all": texts[:count]})
        for threads in (1, 2):
            say(f"scaling: {count} texts, {threads} threads")
            options = {"threads": threads, "adapter": "embedge_iter", "repeat_s": 2}
            run = runner.run(peer, file, ("all",), **options)
            rows.append({"threads": threads, **run["workloads"]["all"]})
    return rows


def _share(texts: list[str], share: float) -> list[str]:
    """The first part of the texts, never less than one batch of them."""
    return texts[: max(32, round(len(texts) * share))]


def _spread(texts: list[str], count: int) -> list[str]:
    return texts[:: max(1, len(texts) // count)][:count]
