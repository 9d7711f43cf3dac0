"""Tiny models with seeded random weights, made here: nothing is downloaded."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tests.export import traced
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from embedge_export import pipeline
from embedge_export.graph.passes.simplify import simplify
from embedge_export.quantization.int8 import quantize_int8
from embedge_export.source.load import Source
from embedge_export.source.trace import trace

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?$#-:()"


@pytest.fixture(scope="session", autouse=True)
def one_trace_per_transformer() -> Iterator[None]:
    """Exports trace each transformer once a session: that takes most of their time.

    tests/export/test_trace.py traces again, and test_pipeline.py compares two traces' bytes.
    """
    traces: dict[str, onnx.ModelProto] = {}

    def traced_once(source: Source) -> onnx.ModelProto:
        key = identity(source.model[0].auto_model)
        if key not in traces:
            traces[key] = trace(source)
        copy = onnx.ModelProto()
        copy.CopyFrom(traces[key])
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "trace", traced_once)
        yield


def identity(transformer: Any) -> str:
    """A hash of all that a trace depends on: class, configuration and weights."""
    config = transformer.config.to_dict()
    config.pop("_name_or_path", None)
    digest = hashlib.sha256(f"{type(transformer)}{json.dumps(config, default=str)}".encode())
    for name, tensor in transformer.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def word_piece() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer that spells every word letter by letter, with some whole words."""
    words = ["the", "a", "man", "is", "eating", "food", "river", "password", "how", "do", "i"]
    pieces = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *words]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=256,
    )


@pytest.fixture(scope="session")
def transformer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder: BERT, hidden size 32, two layers, 256 positions."""
    folder = tmp_path_factory.mktemp("plain") / "tiny-bert"
    torch.manual_seed(0)
    tokenizer = word_piece()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.2,  # the default 0.02 gives almost the same vector for every text
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence_transformer(folder: Path, *head: torch.nn.Module) -> SentenceTransformer:
    """A sentence transformer around the tiny transformer with modules of one's own."""
    transformer = st.Transformer(str(folder), max_seq_length=256)
    return SentenceTransformer(modules=[transformer, *head], device="cpu")


@pytest.fixture(scope="session")
def sentence_folder(transformer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: the tiny BERT, mean pooling, Dense, LayerNorm, Normalize."""
    torch.manual_seed(1)
    model = sentence_transformer(
        transformer_folder,
        st.Pooling(32, "mean"),
        st.Dense(32, 24),
        st.LayerNorm(24),
        st.Normalize(),
    )
    model.prompts = {"query": "how do i ", "document": "the "}
    folder = tmp_path_factory.mktemp("sentence") / "tiny-sentence"
    model.save(str(folder))
    return folder


@pytest.fixture(scope="session")
def plain() -> onnx.ModelProto:
    """The traced encoder after the fp32 passes."""
    return simplify(traced.encoder())


@pytest.fixture(scope="session")
def int8(plain: onnx.ModelProto) -> onnx.ModelProto:
    """The same, quantized."""
    return quantize_int8(plain, traced.FEEDS)
