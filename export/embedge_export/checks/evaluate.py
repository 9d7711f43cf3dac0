"""Quality of vectors: rank correlation with human scores, and the anisotropy of their space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError
from embedge.similarity import similarity

Vectors = NDArray[np.float32]
Scores = NDArray[Any]
Encode = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts and how alike people found them; scores are float64 (n,)."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    scores: Scores

    @classmethod
    def read(cls, path: Path) -> "Pairs":
        """Read lines of text, text and score, between tabs; a first line may name the columns.

        Raises:
            OptionError: the file cannot be read, or a line is not like that; says which.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"--eval {path} cannot be read: {error}") from error
        rows = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            cells = line.rstrip("\r").split("\t")
            try:
                left, right, score = cells
                rows.append((left, right, float(score)))
            except ValueError:
                if number == 1 and len(cells) == 3:
                    continue  # the names of the columns
                raise OptionError(
                    f"--eval {path}, line {number}: expected text, text and a number between "
                    f"tabs, got {line[:60]!r}"
                ) from None
        if len(rows) < 2:
            raise OptionError(f"--eval {path} holds {len(rows)} pairs; at least 2 are needed")
        return cls(
            tuple(row[0] for row in rows),
            tuple(row[1] for row in rows),
            np.array([row[2] for row in rows], np.float64),
        )


def spearman(pairs: Pairs, encode: Encode, measure: str) -> float:
    """Spearman's rank correlation of the pairs' similarities with their scores, x100."""
    texts = list(dict.fromkeys([*pairs.left, *pairs.right]))
    place = {text: index for index, text in enumerate(texts)}
    vectors = encode(texts)
    found = [
        similarity(vectors[place[a]], vectors[place[b]], measure)[0, 0]
        for a, b in zip(pairs.left, pairs.right, strict=True)
    ]
    return round(100 * rank_correlation(np.array(found), pairs.scores), 2)


def rank_correlation(a: Scores, b: Scores) -> float:
    """Spearman's rank correlation of two rows of numbers, (n,) each."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def anisotropy(vectors: Vectors) -> float:
    """Mean cosine of the vectors of different texts, (n, dim): near 1 in a narrow space.

    Ethayarajh, 2019, https://arxiv.org/abs/1909.00512, section 3.1.
    """
    unit = directions(vectors)
    n = len(unit)
    total = float((unit.sum(0) ** 2).sum()) - float((unit * unit).sum())
    return round(total / (n * (n - 1)), 4)


def directions(vectors: Vectors) -> NDArray[np.float64]:
    """Rows of length 1 in double precision; a row of zeros stays: (n, dim)."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit: NDArray[np.float64] = vectors / np.maximum(lengths, 1e-30)
    return unit


def _ranks(values: Scores) -> NDArray[np.float64]:
    """Ranks from 1, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return means
