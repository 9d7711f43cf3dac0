"""Inputs and outputs that the graph of a model file has: the contract of writer and reader."""

from collections.abc import Sequence

from embedge.errors import ModelError
from embedge.modelfile.settings import ModelSettings
from embedge.modelfile.validate import TensorSpec, Walked

INPUTS = ("input_ids", "attention_mask")  # int64 (batch, sequence)
HIDDEN = "last_hidden_state"  # float32 (batch, sequence, hidden): what pooling reads
OUTPUT = "sentence_embedding"  # float32 (batch, dim)
# In the order in which files have them: tools that take the first output expect token vectors.
OUTPUTS = (HIDDEN, OUTPUT)

_FLOAT32, _INT64 = 1, 7


def check_signature(walked: Walked, settings: ModelSettings) -> None:
    """Raise ModelError unless the graph takes INPUTS and gives OUTPUTS, as ``settings`` say."""
    if _unlike(walked.inputs, dict.fromkeys(INPUTS, (_INT64, None, None))):
        raise ModelError(
            f"expected the inputs {' and '.join(INPUTS)}, int64 (batch, sequence), "
            f"got {_show(walked.inputs)}; export the model again"
        )
    hidden, dim = settings.transformer.hidden_size, settings.dim
    wanted = {HIDDEN: (_FLOAT32, None, None, hidden), OUTPUT: (_FLOAT32, None, dim)}
    if _unlike(walked.outputs, wanted):
        raise ModelError(
            f"expected the outputs {HIDDEN}, float32 (batch, sequence, {hidden}), and {OUTPUT}, "
            f"float32 (batch, {dim}), as the settings say, got {_show(walked.outputs)}; export the "
            "model again"
        )


def _unlike(specs: Sequence[TensorSpec], wanted: dict[str, tuple[int | None, ...]]) -> bool:
    """Whether the tensors are others than ``wanted``: type and dimensions by name, None any."""
    if sorted(spec.name for spec in specs) != sorted(wanted):
        return True
    found = {spec.name: (spec.elem_type, *spec.shape) for spec in specs}
    return any(
        len(found[name]) != len(want)
        or any(w not in (None, f) for f, w in zip(found[name], want, strict=True))
        for name, want in wanted.items()
    )


def _show(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{s.name} {s.shape}".replace("'", "") for s in specs) or "nothing"
