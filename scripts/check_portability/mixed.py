#!/usr/bin/env python3
"""Write a small int8 file that has every precision: 8 bits, fp32 channels, 16 bits and fp32.

    python scripts/check_portability/mixed.py mixed.int8.onnx
    python scripts/check_portability --model mixed.int8.onnx

`embedge export` chooses precisions by what they gain; here the activations take turns, so that no
kind is missing. Needs the export extra. The weights are random, from a seed.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from unittest.mock import patch

import onnx
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from tests.export.architectures import TOKENIZERS  # noqa: E402

from embedge_export import export  # noqa: E402
from embedge_export.quantization.int8 import Quantizer  # noqa: E402
from embedge_export.quantization.products import Precision  # noqa: E402
from embedge_export.quantization.sensitivity import Adapted, Target  # noqa: E402

TOKENS = 64
# Products whose inner size is over 128 are summed in parts; 200 and 328 leave a rest in every part.
SIZES = {"hidden_size": 200, "intermediate_size": 328, "num_attention_heads": 4}


def main(path: str) -> None:
    with tempfile.TemporaryDirectory() as folder, patch("embedge_export.formats.adapt", in_turns):
        print(export(build(Path(folder)), path)["int8"])


def build(folder: Path) -> Path:
    """A folder of a BERT with seeded random weights."""
    torch.manual_seed(0)
    tokenizer = TOKENIZERS["WordPiece"](transformers.BertTokenizerFast)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=3,
        max_position_embeddings=TOKENS,
        initializer_range=0.15,
        **SIZES,
    )
    transformers.BertModel(config).save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    transformer = st.Transformer(str(folder / "plain"), max_seq_length=TOKENS)
    modules = [transformer, st.Pooling(SIZES["hidden_size"], "mean"), st.Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "mixed"))
    return folder / "mixed"


def in_turns(
    model: onnx.ModelProto,
    quantizer: Quantizer,
    held_back: Sequence[Mapping[str, object]],
    target: Target,
    notify: Callable[[str], None],
) -> Adapted:
    """`adapt`, with a precision for each activation in turn."""
    names = list(quantizer.activations)
    quantizer.quantize(names, outliers=True)
    precisions = dict(zip(names, cycle(Precision), strict=False))
    notify(", ".join(f"{name}: {precision.name}" for name, precision in precisions.items()))
    counts = {kind.name: list(precisions.values()).count(kind) for kind in Precision}
    return Adapted(quantizer.assemble(precisions), counts)


if __name__ == "__main__":
    main(sys.argv[1])
