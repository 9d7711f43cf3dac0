"""source > trace > graph > quantize > pack > verify, and a file only if all of it went well."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx

from embedge.encoder import Encoder
from embedge.errors import ExportError, OptionError
from embedge.modelfile.settings import ModelSettings
from embedge.text.tokenizer import TextTokenizer
from embedge_export import pack
from embedge_export.checks import verify
from embedge_export.checks.evaluate import Pairs
from embedge_export.checks.verify import ProbeText, encode_probes
from embedge_export.formats import QUANTIZED, Calibration, Format
from embedge_export.graph import head
from embedge_export.graph.passes.simplify import simplify
from embedge_export.graph.passes.tables import trim_tables
from embedge_export.quantization.sensitivity import MEAN_COSINE
from embedge_export.recipe import Recipe
from embedge_export.source.load import Source, load
from embedge_export.source.trace import trace
from embedge_export.steps import Notify, step

Report = dict[str, Any]


_LONGEST_PROBE = 1024  # tokens; attention takes the square of them, in every self-test


def export(
    source: str | Path | Recipe,
    output: str | Path,
    *,
    format: Format = "int8",
    calibration: Sequence[str] | None = None,
    target: float = MEAN_COSINE,
    pairs: Pairs | None = None,
    notify: Notify = lambda message: None,
) -> Report:
    """Export a sentence transformer into one model file.

    Args:
        source: a Recipe, a recipe.toml or its folder, a model's folder, or a hub id.
        output: where the file goes; it appears whole or not at all.
        format: "int8" (for CPUs), "fp16" (for GPUs and CoreML) or "fp32".
        calibration: texts like those that the model will meet; int8 ranges are chosen by every
            second one and measured on the others. None is the exporter's own.
        target: int8 gives activations more precision until the mean cosine to fp32 is this on the
            texts held back, and the 1st percentile misses 1 by at most 2.5 times as much.
        pairs: scored pairs of texts; the report then has their rank correlations.
        notify: called with a line of text at each step, and every 15 seconds in a long one.

    Returns:
        The report that the file carries.

    Raises:
        ExportError: a step failed; says which. No file is written.
        OptionError: the format is unknown, or the calibration texts or the target make no sense.
    """
    if format not in get_args(Format):
        raise OptionError(f"expected format to be {' or '.join(get_args(Format))}, got {format!r}")
    outputs = {format: Path(output)}
    options = Calibration.of(calibration, target)
    return _export(Recipe.of(source), outputs, options, pairs, notify)[format]


def export_all(
    source: str | Path | Recipe,
    folder: str | Path,
    *,
    calibration: Sequence[str] | None = None,
    target: float = MEAN_COSINE,
    pairs: Pairs | None = None,
    notify: Notify = lambda message: None,
) -> dict[Format, Report]:
    """Export a sentence transformer into one file of each format: FOLDER/NAME.int8.onnx, ...

    The files appear when all have passed their checks. Arguments, reports and errors are
    `export`'s.
    """
    recipe = Recipe.of(source)
    outputs = {
        format: Path(folder) / f"{recipe.title}.{format}.onnx" for format in get_args(Format)
    }
    return _export(recipe, outputs, Calibration.of(calibration, target), pairs, notify)


def _export(
    recipe: Recipe,
    outputs: Mapping[Format, Path],
    calibration: Calibration,
    pairs: Pairs | None,
    notify: Notify,
) -> dict[Format, Report]:
    folder = _writable_folder(outputs.values())
    with step("source", notify) as say:
        source = _load(recipe, say)
        verifier = verify.ExportVerifier(source, _probes(recipe, source), pairs, folder, notify)
    models, settings = _graphs(source, outputs, notify)
    if recipe.dim not in (None, settings.dim):
        raise ExportError(
            "graph", f"the recipe expects {recipe.dim} components, the model has {settings.dim}"
        )
    with step("verify", notify):
        verifier.fp32(models[False], settings)
    reports: dict[Format, Report] = {}
    with ExitStack() as stack:
        for format, output in outputs.items():
            made, stated, result = models[False], settings, verifier.first
            if format in QUANTIZED:
                scheme = QUANTIZED[format]
                with step("quantize", notify) as say:
                    say(f"{format}, {len(models[scheme.portable].graph.node)} nodes")
                    made, report = scheme.make(models[scheme.portable], source, calibration, say)
                stated = replace(settings, quantization=scheme.quantization)
                with step("verify", notify):
                    result = verifier.quantized(format, made, stated, scheme.mean_cosine)
                result.report.update(report)
            with step("pack", notify) as say:
                temporary = stack.enter_context(pack.atomic(output))
                size = _write(temporary, made, stated, source.tokenizer_json, result)
                _read_back(temporary, stated, verifier.probes, result)
                say(f"{output}, {size:,} bytes")
            reports[format] = result.report
    return reports


def _load(recipe: Recipe, say: Notify) -> Source:
    """Load the source, and say what was assumed, dropped or replaced."""
    say(recipe.source)
    source = load(recipe)
    for remark in source.remarks:
        say(remark)
    for key, value in source.overridden.items():
        say(f"{key} instead of the model's own {value!r}")
    return source


def _graphs(
    source: Source, formats: Iterable[Format], notify: Notify
) -> tuple[dict[bool, onnx.ModelProto], ModelSettings]:
    """The fp32 graphs that `formats` are made of, by whether they are portable; and settings."""
    with step("trace", notify) as say:
        say(f"{source.origin['architecture']}, {source.max_tokens} tokens")
        traced = trace(source)
        source.release()
    with step("graph", notify) as say:
        say(f"{len(traced.graph.node)} nodes traced")
        attached, dim = head.attach(traced, source.modules, source.hidden_size)
        del traced
        attached = trim_tables(attached, source.max_tokens)
        wanted = {QUANTIZED[format].portable for format in formats if format in QUANTIZED}
        models = {kind: simplify(attached, portable=kind) for kind in wanted | {False}}
        return models, _settings(source, dim)


def _write(
    path: Path,
    model: onnx.ModelProto,
    settings: ModelSettings,
    tokenizer_json: str,
    result: verify.VerificationResult,
) -> int:
    """Write a model file; returns its size in bytes."""
    return path.write_bytes(
        pack.pack(model, settings, tokenizer_json, result.probes, result.report)
    )


def _read_back(
    path: Path,
    settings: ModelSettings,
    probes: Sequence[verify.ProbeText],
    result: verify.VerificationResult,
) -> None:
    """Raise ExportError unless a file gives the vectors of its draft."""
    written = encode_probes(Encoder(path, dim=settings.dim).encode, probes)
    if not np.array_equal(written, result.vectors):
        raise ExportError(
            "verify", "the file gives other vectors than its draft; report this as a bug"
        )


def _writable_folder(outputs: Iterable[Path]) -> Path:
    """The folder of the outputs; checked before minutes of work.

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
        if count and (fitting or count <= source.max_tokens)  # none: no special tokens, no text
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
        raise ExportError(
            "source", "expected Pooling as the module after the transformer; save the model with it"
        )
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
