"""Source against file: an export that does not reproduce its source leaves no file."""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
import onnx

import embedge
from embedge.encoder import Encoder
from embedge.errors import ExportError
from embedge.modelfile.probe import Probe
from embedge.modelfile.settings import ModelSettings
from embedge.ort.probes import probe_ids
from embedge.similarity import cosines
from embedge.text.overflow import TruncationWarning
from embedge.text.tokenizer import TextTokenizer
from embedge_export import pack
from embedge_export.checks.evaluate import Encode, Pairs, Vectors, anisotropy, spearman
from embedge_export.quantization.calibration import calibration_texts
from embedge_export.source.load import Source

# The tracer changes nothing but the order of sums.
FP32_MIN_COSINE = 0.99999
# Below these means something is broken. int8 is never refused for what quantization costs: its
# report has that, with the target. Poor int8 files of others have 0.88; a wrong graph about 0.
INT8_BROKEN = 0.7
FP16_MEAN_COSINE = 0.999
_UNIT_TOLERANCE = 1e-4

_TOOLS = ("numpy", "onnx", "onnxruntime", "sentence-transformers", "tokenizers")
_TRACERS = ("optimum-onnx", "onnxscript")  # of the older and of the current stack


@dataclass(frozen=True)
class VerificationResult:
    """A draft's vectors of the probes, float32 (probes, dim), and the report of its checks."""

    vectors: Vectors
    probes: list[Probe]
    report: dict[str, Any]


@dataclass(frozen=True)
class ProbeText:
    """A text for a file's self-test, and the name of its prompt (None: the model's default)."""

    text: str
    prompt: str | None = None


def encode_probes(encode: Callable[..., Vectors], probes: Sequence[ProbeText]) -> Vectors:
    """Vectors of the probes, each with its prompt, float32 (probes, dim)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # one is meant to be truncated
        return np.concatenate([encode([p.text], prompt=p.prompt) for p in probes])


class ExportVerifier:
    """Compares drafts of files with the source, which encodes before anything is traced.

    Attributes:
        probes: the texts of the files' self-test.
        first: what the fp32 graph gave, after `fp32`.
    """

    def __init__(
        self,
        source: Source,
        probes: Sequence[ProbeText],
        pairs: Pairs | None,
        folder: Path,
        notify: Callable[[str], None],
    ) -> None:
        self._source, self.probes, self._pairs = source, list(probes), pairs
        self._folder, self._notify = folder, notify
        self._reference = encode_probes(source.encode, probes)  # (probes, dim)
        _check_reference(self._reference, [probe.text for probe in probes])
        self._unrelated = calibration_texts()[::4]
        self._spearman: dict[str, float] = {}
        self._anisotropy: dict[str, float] = {}
        if pairs is not None:
            self._spearman["source"] = spearman(pairs, source.encode, source.similarity)
        self.first: VerificationResult

    def fp32(self, model: onnx.ModelProto, settings: ModelSettings) -> None:
        """Compare the fp32 graph with the source; every other format is compared with it."""
        vectors = self._draft("fp32", model, settings)
        figures = self._compared(
            "fp32 against the source",
            vectors,
            self._reference,
            settings,
            min_cosine=FP32_MIN_COSINE,
        )
        self.first = self._result(vectors, {"fp32_against_source": figures})

    def quantized(
        self, name: str, model: onnx.ModelProto, settings: ModelSettings, mean_cosine: float
    ) -> VerificationResult:
        """Compare a quantized graph with the fp32 graph."""
        vectors = self._draft(name, model, settings)
        figures = self._compared(
            f"{name} against fp32", vectors, self.first.vectors, settings, mean_cosine=mean_cosine
        )
        first = self.first.report["fp32_against_source"]
        report = {"fp32_against_source": first, f"{name}_against_fp32": figures}
        return self._result(vectors, report, name)

    def _result(
        self, vectors: Vectors, figures: dict[str, Any], *quantized: str
    ) -> VerificationResult:
        shown = ("source", "fp32", *quantized)
        report: dict[str, Any] = {"tools": tools(), "probes": len(self.probes), **figures}
        report["anisotropy"] = {n: v for n, v in self._anisotropy.items() if n in shown}
        if self._pairs is not None:
            scores = {name: value for name, value in self._spearman.items() if name in shown}
            report["spearman"] = {"pairs": len(self._pairs.scores), **scores}
        if self._source.overridden:
            report["overridden"] = dict(self._source.overridden)
        if self._source.remarks:
            report["remarks"] = list(self._source.remarks)
        rows = zip(self.probes, self._reference, vectors, strict=True)
        probes = [Probe(p.text, ref, out, self._ids(p), p.prompt) for p, ref, out in rows]
        return VerificationResult(vectors, probes, report)

    def _ids(self, probe: ProbeText) -> tuple[int, ...]:
        source = self._source
        tokenizer = TextTokenizer(source.tokenizer_json, source.max_tokens)
        name = source.default_prompt if probe.prompt is None else probe.prompt
        return probe_ids(tokenizer, source.prompts[name] if name else "", probe.text)

    def _draft(self, name: str, model: onnx.ModelProto, settings: ModelSettings) -> Vectors:
        """Vectors of the probes from a file as its users will load it; evaluates it as well."""
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".embedge-") as folder:
            path = Path(folder) / "draft.onnx"
            path.write_bytes(pack.pack(model, settings, self._source.tokenizer_json, [], {}))
            encoder = Encoder(path, dim=settings.dim)
        encode: Encode = encoder.encode
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # the source truncates them as well
            self._anisotropy[name] = anisotropy(encode(self._unrelated))
            if self._pairs is not None:
                self._spearman[name] = spearman(self._pairs, encode, settings.similarity)
            return encode_probes(encoder.encode, self.probes)

    def _compared(
        self,
        what: str,
        got: Vectors,
        reference: Vectors,
        settings: ModelSettings,
        **least: float,
    ) -> dict[str, float]:
        texts = [probe.text for probe in self.probes]
        figures = compare(what, got, reference, texts, normalized=settings.normalized, **least)
        self._notify(
            f"verify    {what}: cosine mean {figures['cosine_mean']:.6f}, "
            f"minimum {figures['cosine_min']:.6f}"
        )
        return figures


def _check_reference(reference: Vectors, texts: Sequence[str]) -> None:
    """Refuse a source whose own vectors mean nothing, before anything is traced."""
    lengths = np.linalg.norm(reference, axis=1)
    for text, length in zip(texts, lengths, strict=True):
        if not np.isfinite(length) or length == 0:
            raise ExportError(
                "source",
                f"the vector that the model gives {_shortened(text)} is "
                f"{'all zeros' if length == 0 else 'not finite'}, in sentence-transformers too; "
                "check that its weights are the trained ones",
            )


def compare(
    what: str,
    got: Vectors,
    reference: Vectors,
    texts: Sequence[str],
    *,
    normalized: bool,
    min_cosine: float = -1.0,
    mean_cosine: float = -1.0,
) -> dict[str, float]:
    """Compare vectors of `texts` with their reference, both float32 (n, dim).

    Returns:
        Mean and minimum cosine and the largest difference of a component, rounded.

    Raises:
        ExportError: a shape, a length or a cosine is not what it should be.
    """
    if got.shape != reference.shape:
        raise ExportError("verify", f"{what}: expected shape {reference.shape}, got {got.shape}")
    if not np.isfinite(got).all():
        raise ExportError("verify", f"{what}: the vectors are not finite")
    lengths = np.linalg.norm(got, axis=1)
    if normalized and np.abs(lengths - 1).max() > _UNIT_TOLERANCE:
        raise ExportError("verify", f"{what}: a vector has the length {lengths.max():.6f}, not 1")
    cosine = cosines(got, reference)
    worst = texts[int(cosine.argmin())]
    _check_cosine(f"{what}: minimum", float(cosine.min()), min_cosine, worst)
    _check_cosine(f"{what}: mean", float(cosine.mean()), mean_cosine, worst)
    return {
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_min": round(float(cosine.min()), 6),
        "largest_difference": round(float(np.abs(got - reference).max()), 6),
    }


def _check_cosine(what: str, value: float, least: float, worst: str) -> None:
    if value < least:
        raise ExportError(
            "verify",
            f"{what} cosine {value:.6f} on the probes, but at least {least} is needed; "
            f"the worst text is {_shortened(worst)}: the graph computes something else than the "
            "model; export it as another format, or report the model",
        )


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def tools() -> dict[str, Any]:
    """Versions of everything that decides the bytes of a file."""
    versions = {name: version(name) for name in (*_TOOLS, "torch", "transformers")}
    for name in _TRACERS:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"embedge": embedge.__version__, "python": python_version(), **versions}
