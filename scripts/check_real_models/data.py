"""The evaluation sets: scored pairs, translated sentences, and SciFact's retrieval."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedge_export.checks.evaluate import Pairs, Vectors

LEAST = 50  # sentences of a language, for it to be compared


def pairs(path: Path, front: str) -> Pairs:
    """Pairs of a table with the columns sentence1, sentence2 and score; ``front`` before each."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = lines[0].split("\t")
    places = [names.index(name) for name in ("sentence1", "sentence2", "score")]
    left, right, scores = zip(
        *([line.split("\t")[i] for i in places] for line in lines[1:]), strict=True
    )
    left, right = (tuple(front + text for text in side) for side in (left, right))
    return Pairs(left, right, np.array(scores, np.float64))


def by_language(path: Path, front: str) -> dict[str, list[str]]:
    """Sentences of STS-B translated, by language: those languages that have `LEAST` of them."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        row = json.loads(line) if line else {"source": ""}
        if row["source"].startswith("stsb-multi-mt"):
            found.setdefault(row["lang"], []).append(front + row["text"])
    return {key: texts for key, texts in sorted(found.items()) if len(texts) >= LEAST}


def judgments(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            if int(row["score"]) > 0:
                found.setdefault(row["query-id"], set()).add(row["corpus-id"])
    return dict(sorted(found.items()))


def ndcg(scores: Vectors, names: NDArray[np.str_], relevant: Sequence[set[str]]) -> float:
    """Mean nDCG@10 (x100), binary relevance, log2 discounts."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    discounts = 1 / np.log2(np.arange(2, 12))
    gains = [
        (np.isin(names[row], list(some)) * discounts).sum() / discounts[: len(some)].sum()
        for row, some in zip(best, relevant, strict=True)
    ]
    return float(100 * np.mean(gains))
