"""source > trace > graph > quantize > pack > verify, and a file only if all of it went well."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from embedge.encoder import Encoder
from embedge.errors import EmbedgeError, ExportError, OptionError
from embedge.modelfile.settings import ModelSettings
from embedge.modelfile.signature import INPUTS
from embedge.ort.batching import TokenSequence, Waiting
from embedge.text.tokenizer import TextTokenizer
from embedge_export import pack
from embedge_export.checks import verify
from embedge_export.checks.evaluate import Pairs
from embedge_export.checks.verify import ProbeText, encode_probes
from embedge_export.graph import head
from embedge_export.graph.passes.portable import portable_attention, portable_softmax
from embedge_export.graph.passes.simplify import simplify
from embedge_export.graph.passes.tables import trim_tables
from embedge_export.quantization import fp16, int8
from embedge_export.quantization.calibration import calibration_texts
from embedge_export.recipe import Recipe
from embedge_export.source.load import Source, load
from embedge_export.source.trace import trace

Format = Literal["int8", "fp16", "fp32"]
Notify = Callable[[str], None]
Report = dict[str, Any]


@dataclass(frozen=True)
class _Scheme:
    """How a format is made of the fp32 graph, and the mean cosine that it must reach."""

    make: Callable[[onnx.ModelProto, Source, Sequence[str], bool], onnx.ModelProto]
    portable: bool  # from the graph of onnx's own operators
    quantization: str
    mean_cosine: float


def _int8(
    model: onnx.ModelProto, source: Source, texts: Sequence[str], progress: bool
) -> onnx.ModelProto:
    made = int8.quantize_int8(model, _feeds(texts, source), progress=progress)
    return portable_softmax(portable_attention(made, source.max_tokens))


def _fp16(
    model: onnx.ModelProto, source: Source, texts: Sequence[str], progress: bool
) -> onnx.ModelProto:
    return fp16.convert_to_fp16(model)


_LONGEST_PROBE = 1024  # tokens; attention takes the square of them, in every self-test

QUANTIZED: dict[Format, _Scheme] = {
    "int8": _Scheme(_int8, False, int8.QUANTIZATION_SCHEME, verify.INT8_MEAN_COSINE),
    "fp16": _Scheme(_fp16, True, "fp16", verify.FP16_MEAN_COSINE),
}


def export(
    source: str | Path | Recipe,
    output: str | Path,
    *,
    format: Format = "int8",
    calibration: Sequence[str] | None = None,
    pairs: Pairs | None = None,
    notify: Notify = lambda message: None,
    progress: bool = False,
) -> Report:
    """Export a sentence transformer into one model file.

    Args:
        source: a Recipe, a recipe.toml or its folder, a model's folder, or a hub id.
        output: where the file goes; it appears whole or not at all.
        format: "int8" (for CPUs), "fp16" (for GPUs and CoreML) or "fp32".
        calibration: texts to choose the int8 ranges with; None is the exporter's own.
        pairs: scored pairs of texts; the report then has their rank correlations.
        notify: called with one line of text at each step.
        progress: draw a bar on standard error, where it is a terminal, for what takes minutes.

    Returns:
        The report that the file carries.

    Raises:
        ExportError: a step failed; says which. No file is written.
        OptionError: the format is unknown.
    """
    if format not in get_args(Format):
        raise OptionError(f"unknown format {format!r}; known: {', '.join(get_args(Format))}")
    outputs = {format: Path(output)}
    return _export(Recipe.of(source), outputs, calibration, pairs, notify, progress)[format]


def export_all(
    source: str | Path | Recipe,
    folder: str | Path,
    *,
    calibration: Sequence[str] | None = None,
    pairs: Pairs | None = None,
    notify: Notify = lambda message: None,
    progress: bool = False,
) -> dict[Format, Report]:
    """Export a sentence transformer into one file of each format: FOLDER/NAME.int8.onnx, ...

    The files appear when all have passed their checks. Arguments, reports and errors are
    `export`'s.
    """
    recipe = Recipe.of(source)
    outputs = {
        format: Path(folder) / f"{recipe.title}.{format}.onnx" for format in get_args(Format)
    }
    return _export(recipe, outputs, calibration, pairs, notify, progress)


def _export(
    recipe: Recipe,
    outputs: Mapping[Format, Path],
    calibration: Sequence[str] | None,
    pairs: Pairs | None,
    notify: Notify,
    progress: bool,
) -> dict[Format, Report]:
    folder = _writable_folder(outputs.values())
    notify(f"source    {recipe.source}")
    with _step("source"):
        source = load(recipe)
        probes = _probes(recipe, source)
        verifier = verify.ExportVerifier(source, probes, pairs, folder, notify)
    for remark in source.remarks:
        notify(f"source    {remark}")
    for key, value in source.overridden.items():
        notify(f"source    {key} instead of the model's own {value!r}")
    notify(f"trace     {source.origin['architecture']}, {source.max_tokens} tokens")
    with _step("trace"):
        traced = trace(source)
        source.release()
    notify(f"graph     {len(traced.graph.node)} nodes traced")
    with _step("graph"):
        attached, dim = head.attach(traced, source.modules, source.hidden_size)
        del traced
        attached = trim_tables(attached, source.max_tokens)
        wanted = {QUANTIZED[format].portable for format in outputs if format in QUANTIZED}
        models = {kind: simplify(attached, portable=kind) for kind in wanted | {False}}
        del attached
    if recipe.dim not in (None, dim):
        raise ExportError(
            "graph", f"the recipe expects {recipe.dim} components, the model has {dim}"
        )
    settings = _settings(source, dim)
    with _step("verify"):
        verifier.fp32(models[False], settings)
    reports: dict[Format, Report] = {}
    with ExitStack() as stack:
        for format, output in outputs.items():
            if format in QUANTIZED:
                scheme = QUANTIZED[format]
                model = models[scheme.portable]
                notify(f"quantize  {format}, {len(model.graph.node)} nodes")
                with _step("quantize"):
                    texts = calibration_texts() if calibration is None else calibration
                    made = scheme.make(model, source, texts, progress)
                stated = replace(settings, quantization=scheme.quantization)
                with _step("verify"):
                    result = verifier.quantized(format, made, stated, scheme.mean_cosine)
            else:
                made, stated, result = models[False], settings, verifier.first
            with _step("pack"):
                temporary = stack.enter_context(pack.atomic(output))
                data = pack.pack(made, stated, source.tokenizer_json, result.probes, result.report)
                size = temporary.write_bytes(data)
                del data
                encoder = Encoder(temporary, dim=settings.dim)
                written = encode_probes(encoder.encode, probes)
                if not np.array_equal(written, result.vectors):
                    raise ExportError("verify", "the file gives other vectors than its draft")
            reports[format] = result.report
            notify(f"pack      {output}, {size:,} bytes")
    return reports


def _writable_folder(outputs: Iterable[Path]) -> Path:
    """The folder of the outputs; refused now rather than after minutes of work.

    Raises:
        ExportError: it is missing, nothing can be written in it, or an output is a folder.
    """
    for output in outputs:
        folder = output.parent.resolve()
        if not folder.is_dir():
            raise ExportError("pack", f"there is no folder {folder}; make it first")
        if output.is_dir():
            raise ExportError("pack", f"{output} is a folder; give the path of the file to write")
        try:
            with tempfile.NamedTemporaryFile(prefix=f".{output.name}.", dir=folder):
                pass
        except OSError as error:
            raise ExportError(
                "pack", f"{folder / output.name} cannot be written: {error.strerror or error}"
            ) from error
    return folder


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Give whatever goes wrong the name of the step it went wrong in."""
    try:
        yield
    except ExportError:
        raise
    except (EmbedgeError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ExportError(name, f"{type(error).__name__}: {error}") from error


def _probes(recipe: Recipe, source: Source) -> list[ProbeText]:
    """The recipe's probes, one that is truncated, and one with a prompt, where there are prompts.

    Of models that take more than _LONGEST_PROBE tokens none is truncated: it would take minutes.
    """
    tokenizer = TextTokenizer(source.tokenizer_json, source.max_tokens)
    front = source.prompts.get(source.default_prompt or "", "")
    counts = tokenizer.count([front + text for text in recipe.probes])
    fitting = source.max_tokens <= _LONGEST_PROBE
    probes = [
        ProbeText(text)
        for text, count in zip(recipe.probes, counts, strict=True)
        if fitting or count <= source.max_tokens
    ]
    if fitting and max(counts, default=0) <= source.max_tokens:
        long = max(recipe.probes, key=len, default="") or "a long text"
        (tokens,) = tokenizer.count([f"{long} "])
        probes.append(ProbeText(" ".join([long] * (source.max_tokens // tokens + 2))))
    named = [name for name, text in source.prompts.items() if text]
    for name in [name for name in named if name != source.default_prompt][:1]:
        probes.append(ProbeText(recipe.probes[0] if recipe.probes else "a text", name))
    return probes


def _settings(source: Source, dim: int) -> ModelSettings:
    pool = source.modules[0]
    if not isinstance(pool, head.Pool):
        raise ExportError("source", "the module after the transformer should be Pooling")
    return ModelSettings(
        name=source.name,
        dim=dim,
        max_tokens=source.max_tokens,
        pooling="+".join(pool.modes) + (" without the prompt" if pool.left_out else ""),
        normalized=isinstance(source.modules[-1], head.Normalize),
        quantization="fp32",
        transformer=source.transformer,
        prompts=source.prompts,
        default_prompt=source.default_prompt,
        similarity=source.similarity,
        source=source.origin,
        license=source.license,
        default_dim=source.default_dim if (source.default_dim or dim) < dim else None,
        matryoshka_dims=tuple(n for n in source.matryoshka_dims if n < dim),
    )


def _feeds(texts: Sequence[str], source: Source) -> list[dict[str, NDArray[np.int64]]]:
    """Calibration texts as graph inputs of equal length, int64 (batch, sequence)."""
    tokenizer = TextTokenizer(source.tokenizer_json, source.max_tokens)
    waiting = Waiting()
    for number, ids in enumerate(tokenizer.ids(texts)):
        waiting.add(TokenSequence(number, np.array(tokenizer.wrap(ids), np.int32), first=True))
    feeds = []
    while waiting:
        batch = np.stack([sequence.ids for sequence in waiting.take(oldest=False)], dtype=np.int64)
        feeds.append(dict(zip(INPUTS, (batch, np.ones_like(batch)), strict=True)))
    return feeds
