"""`embedge compare A B --texts FILE`: how much the vectors of two model files differ.

Needs no more than the runtime does.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.encoder import Encoder
from embedge.errors import OptionError
from embedge.similarity import cosines
from embedge_export.checks.evaluate import Vectors, anisotropy, directions

NEIGHBOURS = 10
ROWS = 1024  # rows of the similarity matrix in memory at a time
PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge compare`."""
    parser.epilog = """examples:
  embedge compare fp32.onnx int8.onnx --texts sentences.txt
  embedge compare old.onnx new.onnx --texts sentences.txt --picture comparison.svg
"""
    parser.add_argument("first", type=Path, metavar="A", help="a model file, the reference")
    parser.add_argument("second", type=Path, metavar="B", help="another of as many components")
    parser.add_argument("--texts", type=Path, required=True, help="texts, one a line")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the distributions")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the figures, and draw the picture where one is asked for."""
    texts = read_texts(arguments.texts, "--texts")
    if len(texts) <= NEIGHBOURS:
        raise OptionError(
            f"expected more than {NEIGHBOURS} different texts in --texts {arguments.texts}, to "
            f"compare neighbours, got {len(texts)}; add some"
        )
    first, second = Encoder(arguments.first), Encoder(arguments.second)
    if first.dim != second.dim:
        raise OptionError(
            f"{arguments.first} gives {first.dim} components and {arguments.second} "
            f"{second.dim}; only vectors of the same space can be compared"
        )
    a, b = first.encode(texts), second.encode(texts)
    cosine, kept = cosines(a, b), neighbours_kept(a, b)
    figures = describe(cosine, kept, a, b)
    if arguments.picture:
        try:
            arguments.picture.write_text(draw(cosine, kept), encoding="utf-8")
        except OSError as error:
            raise OptionError(f"--picture {arguments.picture}: {error.strerror}") from error
    print(json.dumps(figures, indent=2) if arguments.json else table(figures))
    return 0


def read_texts(path: Path, option: str) -> list[str]:
    """The different lines of a file that are not empty, in their order."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{option} {path} cannot be read: {error}") from error
    return list(dict.fromkeys(line.rstrip("\r") for line in lines if line.strip()))


def neighbours_kept(a: Vectors, b: Vectors, count: int = NEIGHBOURS) -> NDArray[np.int64]:
    """How many of each text's ``count`` nearest others under ``a`` are so under ``b``: (n,)."""
    units = directions(a), directions(b)
    kept: list[int] = []
    for start in range(0, len(a), ROWS):
        near, also = (_nearest(unit, start, count) for unit in units)
        kept += [len(np.intersect1d(x, y)) for x, y in zip(near, also, strict=True)]
    return np.array(kept, np.int64)


def _nearest(unit: NDArray[np.float64], start: int, count: int) -> NDArray[np.intp]:
    scores = unit[start : start + ROWS] @ unit.T  # (rows, n)
    own = np.arange(len(scores))
    scores[own, start + own] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def describe(
    cosine: NDArray[np.float64], kept: NDArray[np.int64], a: Vectors, b: Vectors
) -> dict[str, Any]:
    """The figures, ready for JSON."""
    marks = np.percentile(cosine, PERCENTILES)
    return {
        "texts": len(cosine),
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_percentiles": {
            str(p): round(float(v), 6) for p, v in zip(PERCENTILES, marks, strict=True)
        },
        f"kept_of_{NEIGHBOURS}": round(float(kept.mean()), 3),
        f"texts_that_keep_all_{NEIGHBOURS}": round(float((kept == NEIGHBOURS).mean()), 4),
        "anisotropy": {"A": anisotropy(a), "B": anisotropy(b)},
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    marks = figures["cosine_percentiles"]
    share = figures[f"texts_that_keep_all_{NEIGHBOURS}"]
    skew = figures["anisotropy"]
    rows = [
        ("texts", f"{figures['texts']}"),
        ("cosine, mean", f"{figures['cosine_mean']:.6f}"),
        ("cosine, 1st percentile", f"{marks['1']:.6f}"),
        ("cosine, minimum", f"{marks['0']:.6f}"),
        (f"kept of the {NEIGHBOURS} neighbours", f"{figures[f'kept_of_{NEIGHBOURS}']:.2f}"),
        (f"texts that keep all {NEIGHBOURS}", f"{share:.1%}"),
        ("mean cosine of different texts", f"{skew['A']:.4f} (A), {skew['B']:.4f} (B)"),
    ]
    return "\n".join(f"{name:32}{value}" for name, value in rows)


def draw(cosine: NDArray[np.float64], kept: NDArray[np.int64]) -> str:
    """Both distributions as an SVG: bars are shares of the texts."""
    low = min(float(cosine.min()), 0.999)
    edges = np.linspace(low, 1, 31)
    shares = np.histogram(np.clip(cosine, low, 1), edges)[0] / len(cosine)
    counts = np.bincount(kept, minlength=NEIGHBOURS + 1) / len(kept)
    ends = (f"{low:.4f}", "1")
    panels = [
        _panel(20, "cosine of a text's two vectors", shares, ends),
        _panel(380, f"of {NEIGHBOURS} nearest texts, kept", counts, ("0", str(NEIGHBOURS))),
    ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="720" height="240" '
        'font-family="sans-serif" font-size="12">\n'
        '<rect width="720" height="240" fill="white"/>\n' + "".join(panels) + "</svg>\n"
    )


def _panel(left: int, title: str, shares: NDArray[np.float64], ends: tuple[str, str]) -> str:
    width, height, floor = 320, 160, 210
    step, top = width / len(shares), shares.max()
    parts = [f'<text x="{left}" y="24">{title} (tallest bar: {top:.0%} of the texts)</text>\n']
    for index, share in enumerate(shares):
        tall = height * share / top
        parts.append(
            f'<rect x="{left + index * step:.1f}" y="{floor - tall:.1f}" '
            f'width="{step - 1:.1f}" height="{tall:.1f}" fill="#35618f"/>\n'
        )
    parts.append(f'<text x="{left}" y="{floor + 16}">{ends[0]}</text>\n')
    parts.append(f'<text x="{left + width}" y="{floor + 16}" text-anchor="end">{ends[1]}</text>\n')
    return "".join(parts)
