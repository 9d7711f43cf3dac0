"""From runs to medians, from medians to a Markdown page."""

from collections.abc import Iterator, Sequence
from statistics import median, quantiles
from typing import Any

from runner import WORKLOADS

OURS = "embedge"
# A mean cosine to fp32 below this is another model, or a broken one: its speed is withheld. The
# usual int8 file of all-mpnet-base-v2 has 0.88.
BELIEVABLE = 0.8


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs of one peer."""
    work = {
        name: [run["workloads"][name] for run in runs if name in run["workloads"]]
        for name in WORKLOADS
    }
    single = [run["latency_ms"] for run in runs if "latency_ms" in run]
    first = runs[0]
    return {
        "quality": first["quality"],
        "believed": first["quality"]["mean"] >= BELIEVABLE,
        "texts_per_s": {
            name: median(r["texts_per_s"] for r in rows) for name, rows in work.items()
        },
        "peak_rss_mb": {
            name: median(r["peak_rss_mb"] for r in rows) for name, rows in work.items()
        },
        "texts": {name: rows[0]["texts"] for name, rows in work.items()},
        "latency_p50_ms": median(map(median, single)),
        "latency_p95_ms": median(quantiles(one, n=20)[18] for one in single),
        "start_s": median(run["start_s"] for run in runs),
        "starts": len(runs),
        "idle_cpu_percent": first["idle_cpu_percent"],
        "versions": first["versions"],
    }


def markdown(results: dict[str, Any]) -> str:
    """The whole page."""
    peers = {name: peer for name, peer in results["peers"].items() if peer["believed"]}
    parts = [
        f"# Benchmark: {results['settings']['model']}",
        _machine(results),
        "## Speed, with the quality it was bought with\n\n" + _speed(peers),
        "## Size\n\n" + _size(peers),
    ]
    if OURS in peers and len(peers) > 1:
        parts += [
            "## embedge against each peer\n\n" + _ratios(peers),
            "## Where a peer wins\n\n" + _wins(peers),
        ]
    if results["scaling"]:
        parts.append("## embedge over the number of texts\n\n" + _scaling(results["scaling"]))
    parts += ["## How it was measured\n\n" + _method(results), "## Versions\n\n" + _versions(peers)]
    left_out = _left_out(results)
    if left_out:
        parts.append("## Left out\n\n" + left_out)
    return "\n\n".join(parts) + "\n"


def _machine(results: dict[str, Any]) -> str:
    m = results["machine"]
    text = (
        f"{m['cpu']} (family/model {m['family_model']}; has {', '.join(m['has']) or 'none'}; "
        f"has not {', '.join(m['has_not']) or 'none'}), {m['cores']} cores, {m['memory_gb']} GB, "
        f"{m['system']}, Python {m['python']}. {results['settings']['threads']} threads for "
        f"everyone, {results['settings']['when']}."
    )
    if results["settings"]["quick"]:
        text += "\n\n**A quick run: few texts, one process per peer. Orientation, not evidence.**"
    if m["busy_before_percent"] > 5:
        text += (
            f"\n\n**The machine was not idle: {m['busy_before_percent']} % of its CPUs were "
            "busy before the run.**"
        )
    return text


def _speed(peers: dict[str, Any]) -> str:
    head = ["", *(f"{name}, texts/s" for name in WORKLOADS), "one query ms, p50 / p95"]
    head += ["start to first vector s", "cosine to fp32, mean", "1st percentile"]
    rows = [
        [
            p["label"],
            *(_number(p["texts_per_s"][name]) for name in WORKLOADS),
            f"{p['latency_p50_ms']:.1f} / {p['latency_p95_ms']:.1f}",
            f"{p['start_s']:.2f}",
            f"{p['quality']['mean']:.5f}",
            f"{p['quality']['p1']:.5f}",
        ]
        for p in peers.values()
    ]
    return _table(head, rows)


def _size(peers: dict[str, Any]) -> str:
    head = ["", *(f"peak RSS, {name}, MB" for name in WORKLOADS), "idle CPU %"]
    head += ["packages MB", "model file MB"]
    rows = [
        [
            p["label"],
            *(f"{p['peak_rss_mb'][name]:.0f}" for name in WORKLOADS),
            f"{p['idle_cpu_percent']:.1f}",
            f"{p['install_mb']:.0f}",
            f"{p['model_mb']:.1f}",
        ]
        for p in peers.values()
    ]
    return _table(head, rows)


def _figures(peer: dict[str, Any]) -> Iterator[tuple[str, float, bool]]:
    """Name, value, and whether more is better."""
    for name in WORKLOADS:
        yield f"{name}, texts/s", peer["texts_per_s"][name], True
    yield "one query, p50", peer["latency_p50_ms"], False
    yield "one query, p95", peer["latency_p95_ms"], False
    yield "start", peer["start_s"], False
    for name in WORKLOADS:
        yield f"peak RSS, {name}", peer["peak_rss_mb"][name], False
    yield "packages MB", peer["install_mb"], False
    yield "model file MB", peer["model_mb"], False


def _ratios(peers: dict[str, Any]) -> str:
    ours = list(_figures(peers[OURS]))
    rows = [
        [
            peer["label"],
            *(f"{a / b:.2f}" for (_, a, _), (_, b, _) in zip(ours, _figures(peer), strict=True)),
        ]
        for name, peer in peers.items()
        if name != OURS
    ]
    text = "embedge divided by the peer: above 1 is good for texts/s, below 1 for all others.\n\n"
    return text + _table(["", *(name for name, _, _ in ours)], rows)


def _wins(peers: dict[str, Any]) -> str:
    ours = list(_figures(peers[OURS]))
    lines = []
    for name, peer in peers.items():
        pairs = zip(_figures(peer), ours, strict=True)
        won = [
            f"{label} ({theirs:.4g} against {mine:.4g})"
            for (label, theirs, more), (_, mine, _) in pairs
            if name != OURS and (theirs > mine if more else theirs < mine)
        ]
        if won:
            lines.append(f"- {peer['label']}: {', '.join(won)}.")
    closer = [
        p["label"] for p in peers.values() if p["quality"]["mean"] > peers[OURS]["quality"]["mean"]
    ]
    if closer:
        lines.append(f"- Closer to fp32 than embedge: {', '.join(closer)}.")
    return "\n".join(lines) or "Nowhere in this run."


def _scaling(rows: Sequence[dict[str, Any]]) -> str:
    head = ["texts", "threads", "texts/s", "peak RSS MB", "before the work MB"]
    return _table(
        head,
        [
            [
                f"{row['texts']:,}",
                str(row["threads"]),
                _number(row["texts_per_s"]),
                f"{row['peak_rss_mb']:.0f}",
                f"{row['rss_before_mb']:.0f}",
            ]
            for row in rows
        ],
    )


def _method(results: dict[str, Any]) -> str:
    s = results["settings"]
    quality = next(iter(results["peers"].values()))["quality"]
    subsets = [
        f"{p['label']} {', '.join(f'{count} {name}' for name, count in p['texts'].items())}"
        for p in results["peers"].values()
        if p["share"] < 1
    ]
    counts = ", ".join(f"{count} {name}" for name, count in s["texts"].items())
    lines = [
        f"Texts: {counts}."
        + (f" Slow peers got the first of them: {'; '.join(subsets)}." if subsets else ""),
        ("One round" if s["rounds"] == 1 else f"Medians of {s['rounds']} interleaved rounds")
        + ", every process fresh and pinned to "
        f"the same {s['threads']} CPUs; batch size 32 where a peer has one.",
        "All files are made from the same weights, and cut texts at the same length"
        + (f"; every text begins with {s['prompt']!r}." if s["prompt"] else "."),
        "The usual int8 graph in embedge's batching: that of qint8_avx512_vnni.",
        f"Cosine: to sentence-transformers' fp32 vectors of {quality['texts']} of these texts.",
        "One query: single sentences of 40 to 120 characters, one after the other.",
        "Start: from the start of the process to its first vector, files in the page cache.",
        "Peak RSS: of the whole process"
        + (", with the workloads before it." if s["quick"] else ", one workload each."),
        f"Idle CPU: of the process in the {s['idle_s']} seconds after work, 100 is one CPU.",
        "Packages: everything in site-packages but pip; embedge's includes its model file.",
        "Chroma pads every text to 256 tokens; it and light-embed have no option for threads.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _versions(peers: dict[str, Any]) -> str:
    seen = {p["environment"]: p["versions"] for p in peers.values()}
    return "\n".join(
        f"- {name}: {', '.join(f'{k} {v}' for k, v in versions.items())}"
        for name, versions in seen.items()
    )


def _left_out(results: dict[str, Any]) -> str:
    lines = [f"- {name}: failed: {why}" for name, why in results["failed"].items()]
    lines += [
        f"- {p['label']}: mean cosine to fp32 {p['quality']['mean']:.3f}: not this model's vectors"
        for p in results["peers"].values()
        if not p["believed"]
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
