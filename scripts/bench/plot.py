"""Draws results.json: `plot.py RESULTS IMAGE...`. Run in the environment "plot"."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

_WORKLOADS = ("short", "mixed", "docs")
_OURS, _THEIRS = "#c2410c", "#94a3b8"
_TONES = (1.0, 0.7, 0.45)


def draw(results: dict[str, Any], images: list[str]) -> None:
    peers = [peer for peer in results["peers"].values() if peer["believed"]]
    machine, settings = results["machine"], results["settings"]
    height = 1.6 + 0.42 * len(peers)
    figure, (speed, memory, start) = plt.subplots(
        1, 3, figsize=(15, height), sharey=True, width_ratios=(2, 1, 1), layout="constrained"
    )
    _workload_bars(speed, peers, "texts_per_s")
    speed.set_title("texts per second\n(more is better)")
    speed.legend(loc="lower right", frameon=False)
    _workload_bars(memory, peers, "peak_rss_mb")
    memory.set_title("peak memory, MB\n(less is better)")
    colors = [_OURS if peer["label"].startswith("embedge") else _THEIRS for peer in peers]
    bars = start.barh(range(len(peers)), [peer["start_s"] for peer in peers], 0.6, color=colors)
    start.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    start.set_title("process start to first vector, s\n(less is better)")
    speed.set_yticks(range(len(peers)), [_label(peer) for peer in peers])
    speed.invert_yaxis()
    for axes in (speed, memory, start):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.14)
    quick = ", quick run" if settings["quick"] else ""
    figure.suptitle(
        f"all-MiniLM-L6-v2 on {machine['cpu']} ({', '.join(machine['has'])}), "
        f"{settings['threads']} threads{quick}"
    )
    for image in images:
        figure.savefig(image, dpi=130, metadata={"Date": None} if image.endswith("svg") else None)


def _workload_bars(axes: Any, peers: list[dict[str, Any]], figure: str) -> None:
    for place, (name, tone) in enumerate(zip(_WORKLOADS, _TONES, strict=True)):
        values = [peer[figure][name] for peer in peers]
        colors = [_OURS if peer["label"].startswith("embedge") else _THEIRS for peer in peers]
        positions = [row + (place - 1) * 0.27 for row in range(len(peers))]
        bars = axes.barh(positions, values, 0.25, color=colors, alpha=tone, label=name)
        labels = [f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in values]
        axes.bar_label(bars, labels, padding=3, fontsize=7)


def _label(peer: dict[str, Any]) -> str:
    return f"{peer['label']}\ncosine {peer['quality']['mean']:.4f}"


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2:])
