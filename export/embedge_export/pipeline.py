"""source > trace > graph > quantize > pack > verify, and a file only if all of it went well."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from embedge.batching import micro_batches
from embedge.encoder import Encoder
from embedge.errors import EmbedgeError, ExportError, OptionError
from embedge.modelfile import INPUTS, Probe
from embedge.settings import ModelSettings
from embedge.tokenizer import TextTokenizer
from embedge_export import graph, head, pack, quantize, verify
from embedge_export.recipe import Recipe
from embedge_export.source import Source, load, trace

Format = Literal["int8", "fp32"]
Notify = Callable[[str], None]


def export(
    source: str | Path | Recipe,
    output: str | Path,
    *,
    format: Format = "int8",
    calibration: Sequence[str] | None = None,
    notify: Notify = lambda message: None,
) -> dict[str, Any]:
    """Export a sentence transformer into one model file.

    Args:
        source: a Recipe, a recipe.toml or its folder, a model's folder, or a hub id.
        output: where the file goes; it appears whole or not at all.
        format: "int8" (for CPUs) or "fp32".
        calibration: texts to choose the int8 ranges with; None is the exporter's own.
        notify: called with one line of text at each step.

    Returns:
        The report that the file carries.

    Raises:
        ExportError: a step failed; says which. No file is written.
        OptionError: the format is unknown.
    """
    if format not in get_args(Format):
        raise OptionError(f"unknown format {format!r}; known: {', '.join(get_args(Format))}")
    output = Path(output)
    if not output.parent.is_dir():
        raise ExportError("pack", f"there is no folder {output.parent}; make it first")
    if output.is_dir():
        raise ExportError("pack", f"{output} is a folder; give the path of the file to write")
    recipe = Recipe.of(source)
    notify(f"source    {recipe.source}")
    with _step("source"):
        loaded = load(recipe)
        probes = _probes(recipe, loaded)
        reference = loaded.encode(probes)  # (probes, dim)
    notify(f"trace     {loaded.origin['architecture']}, {loaded.max_tokens} tokens")
    with _step("trace"):
        traced = trace(loaded)
    notify(f"graph     {len(traced.graph.node)} nodes traced")
    with _step("graph"):
        model, dim = head.attach(traced, loaded.modules, loaded.hidden_size)
        del traced
        model = graph.simplify(model)
    settings = _settings(loaded, dim)
    report: dict[str, Any] = {"tools": verify.tools(), "probes": len(probes)}

    def draft(model: onnx.ModelProto, settings: ModelSettings) -> NDArray[np.float32]:
        """Vectors of the probes, from a file as its users will load it."""
        return _write_and_encode(model, settings, loaded.tokenizer_json, probes, output)

    with _step("verify"):
        vectors = draft(model, settings)
        report["fp32_against_source"] = _compared(
            "fp32 against the source", vectors, reference, settings, notify,
            min_cosine=verify.FP32_MIN_COSINE,
        )  # fmt: skip
    if format == "int8":
        notify(f"quantize  {len(model.graph.node)} nodes")
        with _step("quantize"):
            texts = quantize.calibration_texts() if calibration is None else calibration
            model = quantize.quantize_int8(model, _feeds(texts, loaded))
        settings = replace(settings, quantization=quantize.QUANTIZATION_SCHEME)
        fp32 = vectors
        with _step("verify"):
            vectors = draft(model, settings)
            report["int8_against_fp32"] = _compared(
                "int8 against fp32", vectors, fp32, settings, notify,
                mean_cosine=verify.QUANTIZED_MEAN_COSINE,
            )  # fmt: skip
    proofs = [Probe(*values) for values in zip(probes, reference, vectors, strict=True)]
    with _step("pack"), pack.atomic(output) as temporary:
        data = pack.pack(model, settings, loaded.tokenizer_json, proofs, report)
        temporary.write_bytes(data)
        if not np.array_equal(Encoder(temporary).encode(probes), vectors):
            raise ExportError("verify", "the written file gives other vectors than its draft")
    notify(f"pack      {output}, {len(data):,} bytes")
    return report


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Give whatever goes wrong the name of the step it went wrong in."""
    try:
        yield
    except ExportError:
        raise
    except (EmbedgeError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ExportError(name, f"{type(error).__name__}: {error}") from error


def _probes(recipe: Recipe, source: Source) -> list[str]:
    """The recipe's probes that fit the model whole."""
    tokenizer = TextTokenizer(source.tokenizer_json, source.max_tokens)
    front = source.prompts.get(source.default_prompt or "", "")
    counts = tokenizer.count([front + text for text in recipe.probes])
    probes = [text for text, n in zip(recipe.probes, counts, strict=True) if n <= source.max_tokens]
    if not probes:
        raise ExportError("source", f"no probe fits into {source.max_tokens} tokens")
    return probes


def _settings(source: Source, dim: int) -> ModelSettings:
    pool = source.modules[0]
    if not isinstance(pool, head.Pool):
        raise ExportError("source", "the module after the transformer should be Pooling")
    return ModelSettings(
        name=source.name,
        dim=dim,
        max_tokens=source.max_tokens,
        pooling="+".join(pool.modes),
        normalized=isinstance(source.modules[-1], head.Normalize),
        quantization="fp32",
        prompts=source.prompts,
        default_prompt=source.default_prompt,
        similarity=source.similarity,
        source=source.origin,
        licence=source.licence,
    )


def _write_and_encode(
    model: onnx.ModelProto,
    settings: ModelSettings,
    tokenizer_json: str,
    texts: Sequence[str],
    beside: Path,
) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix=".embedge-") as folder:
        path = Path(folder) / "draft.onnx"
        path.write_bytes(pack.pack(model, settings, tokenizer_json, [], {}))
        return Encoder(path).encode(texts)


def _compared(
    what: str,
    got: NDArray[np.float32],
    reference: NDArray[np.float32],
    settings: ModelSettings,
    notify: Notify,
    *,
    min_cosine: float = -1.0,
    mean_cosine: float = -1.0,
) -> dict[str, float]:
    figures = verify.compare(
        what,
        got,
        reference,
        normalized=settings.normalized,
        min_cosine=min_cosine,
        mean_cosine=mean_cosine,
    )
    notify(
        f"verify    {what}: cosine mean {figures['cosine_mean']:.6f}, "
        f"minimum {figures['cosine_min']:.6f}"
    )
    return figures


def _feeds(texts: Sequence[str], source: Source) -> list[dict[str, NDArray[np.int64]]]:
    """Calibration texts as graph inputs of equal length, int64 (batch, sequence)."""
    tokenizer = TextTokenizer(source.tokenizer_json, source.max_tokens)
    sequences = [tokenizer.wrap(ids) for ids in tokenizer.ids(texts)]
    lengths = np.array([len(sequence) for sequence in sequences])
    feeds = []
    for batch in micro_batches(lengths, workers=1):
        ids = np.array([sequences[i] for i in batch], np.int64)
        feeds.append(dict(zip(INPUTS, (ids, np.ones_like(ids)), strict=True)))
    return feeds
