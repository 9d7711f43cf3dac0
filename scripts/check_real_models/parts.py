"""What is measured: quality, retrieval, speed and memory. Each prints a table."""

import gzip
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from data import by_language, judgments, ndcg, pairs
from encoders import EXPORTS, TORCH, USUAL, Encode, Kept, Task, encoder_of

from embedge.modelfile.file import read
from embedge.similarity import cosines
from embedge_export.checks.evaluate import Vectors, rank_correlation, spearman

ROUNDS = 5
TIMED = 256  # sentences, in each round
ENCODED = 512  # sentences, for the memory that it takes


def quality(task: Task) -> None:
    """Print the table of the files, and that of the languages."""
    sets = {name: pairs(task.data / name / "dev.tsv", task.prefix) for name in ("stsb", "sick")}
    texts = list(dict.fromkeys(sets["stsb"].left + sets["stsb"].right))
    languages = by_language(task.data / "text" / "odd_text.jsonl", task.prefix)
    columns = "STS-B | SICK | cosine mean | p1 | min | centred mean | p1"
    print(f"| file | {columns} |\n" + "|---" * 8 + "|")
    reference = Kept("fp32", task)(texts)
    found: dict[str, dict[str, Vectors]] = {}
    for name in (*EXPORTS, USUAL, TORCH):
        encode = Kept(name, task)
        cells = [f"{spearman(some, encode, 'cosine'):.2f}" for some in sets.values()]
        cells += [f"{value:.4f}" for value in closeness(encode(texts), reference)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        found[name] = {key: encode(some) for key, some in languages.items()}
    columns = "cosine mean | p1 | centred mean | p1 | rank agreement | translations: fp32 | this"
    print(f"\n| file | language | {columns} |\n" + "|---" * 9 + "|")
    for name in ("plain int8", "int8", USUAL):
        for key in languages:
            print(language(f"| {name} | {key} | ", key, found[name], found["fp32"]))
    print(flush=True)


def language(
    front: str, key: str, vectors: dict[str, Vectors], reference: dict[str, Vectors]
) -> str:
    """A line of the table of languages."""
    mean, p1, _, *centred = closeness(vectors[key], reference[key])
    cells = [f"{value:.4f}" for value in (mean, p1, *centred)]
    cells.append(f"{100 * agreement(vectors[key], reference[key]):.2f}")
    cells += [str(translations(some[key], some["de"])) for some in (reference, vectors)]
    return front + " | ".join(cells) + " |"


def closeness(vectors: Vectors, reference: Vectors) -> list[float]:
    """Mean, 1st percentile and minimum cosine; mean and 1st percentile of centred vectors."""
    raw = cosines(vectors, reference)
    centred = cosines(vectors - reference.mean(0), reference - reference.mean(0))
    p1 = [float(np.percentile(found, 1)) for found in (raw, centred)]
    return [float(raw.mean()), p1[0], float(raw.min()), float(centred.mean()), p1[1]]


def agreement(vectors: Vectors, reference: Vectors) -> float:
    """Spearman's rank correlation of the cosines of all pairs with those of the reference."""
    upper = np.triu_indices(len(vectors), 1)
    return rank_correlation((vectors @ vectors.T)[upper], (reference @ reference.T)[upper])


def translations(vectors: Vectors, others: Vectors) -> int:
    """How many texts have their translation, which has the same number, as nearest neighbour."""
    count = min(len(vectors), len(others))
    nearest = (vectors[:count] @ others[:count].T).argmax(1)
    return int((nearest == np.arange(count)).sum())


def retrieval(task: Task) -> None:
    """Print nDCG@10 of each file."""
    relevant = judgments(task.data / "scifact" / "qrels_train.tsv")
    needed = set().union(*relevant.values())
    with gzip.open(task.data / "scifact" / "corpus.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    rows.sort(key=lambda row: row["_id"] not in needed)  # stable: the relevant ones first
    rows = rows[: max(task.documents, len(needed))]
    with (task.data / "scifact" / "queries.jsonl").open(encoding="utf-8") as stream:
        queries = {row["_id"]: row["text"] for row in map(json.loads, stream)}
    prompts = read(task.folder / "fp32.onnx").settings.prompts
    front = prompts.get("passage", "")
    texts = [f"{front}{row.get('title', '')} {row['text']}" for row in rows]
    asked = [task.prefix + queries[name] for name in relevant]
    print(f"{len(texts)} documents, {len(asked)} queries\n\n| file | nDCG@10 |\n|---|---|")
    for name in (*EXPORTS, USUAL):
        encode = Kept(name, task)
        scores = encode(asked) @ encode(texts).T  # (queries, documents)
        value = ndcg(scores, np.array([row["_id"] for row in rows]), list(relevant.values()))
        print(f"| {name} | {value:.2f} |", flush=True)
    print(flush=True)


def speed(task: Task) -> None:
    """Print texts per second of each file."""
    found = pairs(task.data / "stsb" / "dev.tsv", task.prefix)
    texts = list(dict.fromkeys(found.left + found.right))[:TIMED]
    encoders = {
        name: encoder_of(name, task.model, task.folder) for name in (*EXPORTS, USUAL, TORCH)
    }
    seconds = interleaved(encoders, texts)
    print("| file | texts/s |\n|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {TIMED / taken:.0f} |")
    ratio = seconds["int8"] / seconds["plain int8"]
    print(f"\nint8 takes {ratio:.3f} times the time of plain int8\n", flush=True)


def interleaved(encoders: dict[str, Encode], texts: Sequence[str]) -> dict[str, float]:
    """Median seconds of each encoder, measured in turns."""
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    for round_ in range(ROUNDS + 1):
        for name, encode in encoders.items():
            start = time.perf_counter()
            encode(texts)
            if round_:  # the first warms up
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in taken.items()}


def memory(task: Task) -> None:
    """Print the size and the peak memory of each file, in processes of their own."""
    print("| file | size, MB | peak memory, MB |\n|---|---|---|")
    for name in (*EXPORTS, USUAL, TORCH):
        options = ["--data", str(task.data), "--encode", name, str(task.folder), str(task.model)]
        done = subprocess.run(
            [sys.executable, str(Path(__file__).parent), *options],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        path = task.folder / f"{name}.onnx"
        path = task.model / "model.safetensors" if name == TORCH else path
        peak = float(done.stdout.splitlines()[-1])
        print(f"| {name} | {path.stat().st_size / 1e6:.0f} | {peak:.0f} |", flush=True)
    print(flush=True)


def peak_of(name: str, folder: Path, model: Path, data: Path) -> float:
    """Encode, and return the largest memory of this process in MB."""
    found = pairs(data / "stsb" / "dev.tsv", "")
    encode = encoder_of(name, model, folder)
    encode(found.left[:ENCODED])
    encode([" ".join(found.right[start : start + 20]) for start in range(0, 320, 20)])
    unit = 1e-6 if sys.platform == "darwin" else 1024e-6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


PARTS: dict[str, Callable[[Task], None]] = {
    "quality": quality,
    "retrieval": retrieval,
    "speed": speed,
    "memory": memory,
}
