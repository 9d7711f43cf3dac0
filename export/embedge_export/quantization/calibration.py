"""What flows through a graph: the calibration texts, and samples of its activations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

import numpy as np

from embedge_export.graph.ir import Array, Graph
from embedge_export.quantization.parallel import parallel_map
from embedge_export.texts import read_lines

MASK = "attention_mask"
ROWS = 16384  # rows kept per activation
BYTES = 1 << 30  # samples in memory at a time; each time the graph runs again


def calibration_texts() -> list[str]:
    """The texts that ship to choose ranges with: many domains, scripts and lengths."""
    return _shipped("calibration.txt")


def held_back_texts() -> list[str]:
    """The texts that ship to measure the result on; none is one of `calibration_texts`."""
    return _shipped("held_back.txt")


def split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Deal texts in two: every second one is held back from choosing ranges, to measure on."""
    return list(texts[::2]), list(texts[1::2] or texts)


def _shipped(name: str) -> list[str]:
    file = resources.files("embedge_export.quantization").joinpath(name)
    return read_lines(file.read_text(encoding="utf-8"))


def samples(
    graph: Graph, widths: Mapping[str, int], feeds: Sequence[Mapping[str, Array]]
) -> Iterator[tuple[str, Array]]:
    """Yield (name, float32 (rows, width)) for each activation of `widths`, in its order.

    Rows are tokens; padding is left out. Beyond `ROWS` tokens an even share of each text is kept.
    """
    names = list(widths)
    share = min(1.0, ROWS / max(1, sum(int(np.sum(feed[MASK])) for feed in feeds)))
    while names:
        group = [names.pop(0)]
        size = ROWS * 4 * widths[group[0]]
        while names and size + ROWS * 4 * widths[names[0]] <= BYTES:
            size += ROWS * 4 * widths[names[0]]
            group.append(names.pop(0))
        rng = np.random.default_rng(0)
        kept: list[list[Array]] = [[] for _ in group]
        for feed, values in zip(feeds, parallel_map(graph.runner(group), feeds), strict=True):
            mask = np.asarray(feed[MASK])
            tokens = rng.permutation(np.flatnonzero(mask))
            tokens = np.sort(tokens[: math.ceil(len(tokens) * share)])
            for rows, value in zip(kept, values, strict=True):
                flat = value.reshape(-1, value.shape[-1])
                rows.append(flat[tokens] if len(flat) == mask.size else flat)
        for name in group:
            yield name, np.concatenate(kept.pop(0))
