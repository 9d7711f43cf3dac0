"""One table of transformer architectures, and tiny models of them, made here from seeds.

`scripts/check_architectures` exports every row and writes the table of docs/models.md;
`test_architectures.py` exports one of each kind.
"""

import math
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tests.export import traced
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers as train
from transformers import PreTrainedTokenizerFast

import embedge
from embedge_export import export_all
from embedge_export.graph.passes.attention import fused
from embedge_export.quantization.calibration import calibration_texts
from embedge_export.recipe import Recipe
from embedge_export.source.load import Source, load

ROOT = Path(__file__).parent.parent.parent
WIDTH, LAYERS, HEADS, INNER, TOKENS = 64, 2, 4, 128, 128
VOCABULARY = 800


@dataclass(frozen=True)
class Architecture:
    """A row of the table: a transformers config at a small width, and what surrounds it.

    Attributes:
        name: as people call it.
        config: name of the config class in transformers.
        tokenizer: one of `TOKENIZERS`, as (kind, class in transformers).
        pooling: sentence-transformers' name of the mode.
        settings: keys of the config that the small size and the kind need.
        dense: widths of the Dense layers behind the pooling.
        note: what is worth saying beside the figures.
        why_not: the reason, of one that does not work and has no figures.
        since: the first major version of transformers that has it without code of its own.
        like: name of a row whose graph is of the same kind; the tests export that one only, and
            scripts/check_architectures both.
        by_lanes: operators of its int8 graph whose last bits differ between AVX2 and AVX-512.
        padding: the most that padding may change a component of a vector.
    """

    name: str
    config: str
    tokenizer: tuple[str, str]
    pooling: str = "mean"
    settings: dict[str, Any] = field(default_factory=dict)
    dense: tuple[int, ...] = ()
    note: str = ""
    why_not: str = ""
    since: str = ""
    like: str = ""
    by_lanes: frozenset[str] = frozenset()
    padding: float = 2e-5

    @property
    def missing(self) -> str:
        """Why it cannot be made with the transformers that is installed, or nothing."""
        if hasattr(transformers, self.config):
            return ""
        return f"needs transformers {self.since}: run it with the extra embedge[export]"


def _bert(**more: Any) -> dict[str, Any]:
    """What BERT and its descendants call their sizes; weights so wide that texts differ."""
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": TOKENS,
        "initializer_range": 0.3,
    }
    return sizes | more


_ROBERTA = _bert(max_position_embeddings=TOKENS + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2)
_DECODER = _bert(
    initializer_range=0.1, head_dim=WIDTH // HEADS, num_key_value_heads=2, pad_token_id=0
)
_T5 = {
    "d_model": WIDTH,
    "d_kv": WIDTH // HEADS,
    "d_ff": INNER,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
}
_SLIDING = 16  # shorter than most texts here, so that the window matters

ARCHITECTURES = (
    Architecture("BERT", "BertConfig", ("WordPiece", "BertTokenizerFast"), settings=_bert()),
    Architecture(
        "RoBERTa",
        "RobertaConfig",
        ("byte-level BPE", "RobertaTokenizerFast"),
        settings=_ROBERTA,
    ),
    Architecture(
        "XLM-RoBERTa",
        "XLMRobertaConfig",
        ("Unigram", "XLMRobertaTokenizerFast"),
        settings=_ROBERTA,
        like="RoBERTa",
    ),
    Architecture(
        "DistilBERT",
        "DistilBertConfig",
        ("WordPiece", "DistilBertTokenizerFast"),
        pooling="cls",
        settings={
            "dim": WIDTH,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "hidden_dim": INNER,
            "max_position_embeddings": TOKENS,
            "initializer_range": 0.15,
        },
    ),
    Architecture(
        "MPNet",
        "MPNetConfig",
        ("WordPiece", "MPNetTokenizerFast"),
        settings=_bert(max_position_embeddings=TOKENS + 2, pad_token_id=1),
    ),
    Architecture(
        "ALBERT",
        "AlbertConfig",
        ("Unigram", "AlbertTokenizerFast"),
        settings=_bert(embedding_size=32),
        like="BERT",
    ),
    Architecture(
        "ELECTRA",
        "ElectraConfig",
        ("WordPiece", "ElectraTokenizerFast"),
        settings=_bert(embedding_size=32),
        like="BERT",
    ),
    Architecture(
        "CamemBERT",
        "CamembertConfig",
        ("Unigram", "CamembertTokenizerFast"),
        pooling="max",
        settings=_ROBERTA,
        like="RoBERTa",
    ),
    Architecture(
        "DeBERTa-v2",
        "DebertaV2Config",
        ("Unigram", "DebertaV2TokenizerFast"),
        settings=_bert(
            relative_attention=True,
            position_buckets=32,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            max_relative_positions=-1,
        ),
    ),
    Architecture(
        "ModernBERT",
        "ModernBertConfig",
        ("byte-level BPE", "PreTrainedTokenizerFast"),
        pooling="cls",
        settings=_bert(
            num_hidden_layers=3,
            global_attn_every_n_layers=3,
            local_attention=_SLIDING,
            pad_token_id=0,
            cls_token_id=2,
            bos_token_id=2,
            sep_token_id=3,
            eos_token_id=3,
        ),
    ),
    Architecture(
        "T5 encoder",
        "T5Config",
        ("Unigram", "T5TokenizerFast"),
        settings=_T5,
        dense=(48,),
    ),
    Architecture(
        "Qwen3",
        "Qwen3Config",
        ("byte-level BPE", "Qwen2TokenizerFast"),
        pooling="lasttoken",
        settings=_DECODER,
    ),
    Architecture(
        "Gemma3-text",
        "Gemma3TextConfig",
        ("BPE with byte fallback", "GemmaTokenizerFast"),
        settings=_DECODER
        | {
            "sliding_window": _SLIDING,
            "use_bidirectional_attention": True,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": WIDTH // HEADS,
        },
        dense=(96, WIDTH),
    ),
    Architecture(
        "ERNIE",
        "ErnieConfig",
        ("WordPiece", "BertTokenizerFast"),
        settings=_bert(),
        like="BERT",
    ),
    Architecture(
        "ConvBERT",
        "ConvBertConfig",
        ("WordPiece", "ConvBertTokenizerFast"),
        settings=_bert(embedding_size=WIDTH),
        # A softmax over something else than the scores of heads in fours.
        by_lanes=frozenset({"Softmax"}),
    ),
    Architecture(
        "RoFormer",
        "RoFormerConfig",
        ("WordPiece", "BertTokenizerFast"),
        pooling="max",
        settings=_bert(embedding_size=32, initializer_range=0.5),
        # Weights this large sharpen its softmax: PyTorch's own float32 is 3.4e-5 from float64
        # (BERT's here: 4e-7).
        padding=5e-5,
        note="padding may change a component by 5e-5, not 2e-5: its weights here are large, and "
        "PyTorch's own float32 is 3.4e-5 from float64",
    ),
    Architecture(
        "Data2Vec-text",
        "Data2VecTextConfig",
        ("byte-level BPE", "RobertaTokenizerFast"),
        settings=_ROBERTA,
        like="RoBERTa",
    ),
    Architecture(
        "XLM-RoBERTa-XL",
        "XLMRobertaXLConfig",
        ("Unigram", "XLMRobertaTokenizerFast"),
        settings=_ROBERTA,
        like="RoBERTa",
    ),
    Architecture(
        "RemBERT",
        "RemBertConfig",
        ("Unigram", "RemBertTokenizerFast"),
        settings=_bert(input_embedding_size=32, output_embedding_size=32),
        like="BERT",
    ),
    Architecture(
        "BigBird",
        "BigBirdConfig",
        ("Unigram", "BigBirdTokenizerFast"),
        settings=_bert(attention_type="original_full"),
        note="full attention only",
        like="BERT",
    ),
    Architecture(
        "mT5 encoder",
        "MT5Config",
        ("Unigram", "T5TokenizerFast"),
        settings=_T5,
        like="T5 encoder",
    ),
    Architecture(
        "Qwen2",
        "Qwen2Config",
        ("byte-level BPE", "Qwen2TokenizerFast"),
        pooling="lasttoken",
        settings=_DECODER,
        like="Qwen3",
    ),
    Architecture(
        "Mistral",
        "MistralConfig",
        ("BPE with byte fallback", "LlamaTokenizerFast"),
        pooling="lasttoken",
        settings=_DECODER | {"sliding_window": _SLIDING},
        like="Qwen3",
    ),
    Architecture(
        "Llama",
        "LlamaConfig",
        ("BPE with byte fallback", "LlamaTokenizerFast"),
        settings=_DECODER,
        like="Qwen3",
    ),
    Architecture(
        "Nomic BERT",
        "NomicBertConfig",
        ("WordPiece", "BertTokenizerFast"),
        settings=_bert(head_dim=WIDTH // HEADS),
        since="5",
    ),
    Architecture(
        "EuroBERT",
        "EuroBertConfig",
        ("byte-level BPE", "PreTrainedTokenizerFast"),
        settings=_bert(
            initializer_range=0.1,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            mask_token_id=4,
        ),
        since="5",
        like="Qwen3",
    ),
    Architecture(
        "Jina embeddings v3",
        "JinaEmbeddingsV3Config",
        ("Unigram", "XLMRobertaTokenizerFast"),
        settings=_bert(pad_token_id=1, bos_token_id=0, eos_token_id=2),
        since="5",
    ),
    Architecture(
        "Longformer",
        "LongformerConfig",
        ("byte-level BPE", "RobertaTokenizerFast"),
        settings=_ROBERTA | {"attention_window": _SLIDING},
        why_not="its blocks of local attention are traced for the length of one text",
    ),
)


def texts() -> list[str]:
    """Real text of mixed length, none of which was used for calibration: 60 of 1 to 120 words."""
    words = (ROOT / "LICENSE").read_text(encoding="utf-8").split()
    rng = random.Random(0)
    found = ["", "a", "Ωmega naïve 東京タワー 🙂 Привет", "x = [i ** 2 for i in range(10)]"]
    while len(found) < 60:
        start, length = rng.randrange(len(words) - 120), int(1.6 ** rng.uniform(0, 10))
        found.append(" ".join(words[start : start + length]))
    return found


def build(architecture: Architecture, folder: Path) -> Path:
    """Save a sentence-transformers folder of this architecture, with seeded random weights."""
    kind, tokenizer_class = architecture.tokenizer
    tokenizer = TOKENIZERS[kind](getattr(transformers, tokenizer_class))
    torch.manual_seed(0)
    config = getattr(transformers, architecture.config)(
        vocab_size=len(tokenizer), **architecture.settings
    )
    model = transformers.AutoModel.from_config(config)
    _stir(model)
    plain = folder / "plain"
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    width, head = WIDTH, [st.Pooling(WIDTH, architecture.pooling)]
    for after in architecture.dense:
        head.append(st.Dense(width, after, bias=False, activation_function=torch.nn.Identity()))
        width = after
    transformer = st.Transformer(str(plain), max_seq_length=TOKENS)
    whole = SentenceTransformer(modules=[transformer, *head, st.Normalize()], device="cpu")
    whole.save(str(folder / "model"))
    return folder / "model"


@dataclass(frozen=True)
class Verified:
    """What was found of one architecture, over `texts`; cosines are to PyTorch's vectors.

    Attributes:
        spread: mean cosine of different texts: near 1, the cosines below would show nothing.
        cosines: (minimum, mean) of each format.
        invariant: the formats whose vectors are bit-identical in a call of one text and in a batch.
        padding: largest difference of a component to PyTorch's, padded left and right alike.
        cut: whether a text longer than the model takes was among the texts.
        by_lanes: operators of the int8 graph whose bits depend on the CPU, beside those expected.
        fused: how many attentions of the fp32 graph are one operator.
        nodes: how many nodes the fp32 graph has.
    """

    spread: float
    cosines: dict[str, tuple[float, float]]
    invariant: set[str]
    padding: float
    cut: bool
    by_lanes: frozenset[str]
    fused: int
    nodes: int

    def shortcomings(self, most_padding: float) -> list[str]:
        """What keeps the architecture from counting as supported."""
        demands = {
            f"different texts have a mean cosine of {self.spread:.3f}": self.spread < 0.9,
            "no text was as long as the model takes": self.cut,
            "fp32 differs from PyTorch": self.cosines["fp32"][0] >= 0.99999,
            "fp16 differs from PyTorch": self.cosines["fp16"][0] >= 0.999,
            "int8 differs from PyTorch": self.cosines["int8"][1] >= 0.99,
            "vectors depend on their batch": self.invariant >= {"fp32", "int8"},
            f"padding changes a vector by {self.padding:.1g}": self.padding < most_padding,
            f"other bits on another CPU, by {set(self.by_lanes)}": not self.by_lanes,
        }
        return [what for what, holds in demands.items() if not holds]


def verify(architecture: Architecture, folder: Path) -> Verified:
    """Export an architecture in every format and compare the files with PyTorch."""
    torch.set_num_threads(1)  # on matrices this small several wait for each other
    model, words = build(architecture, folder), texts()
    source = load(Recipe(str(model)))
    reference = source.encode(words)
    padded = {side: _padded(source, side) for side in ("left", "right")}
    export_all(model, folder, calibration=calibration_texts()[:80:2])
    cosines, invariant, cut = {}, set(), False
    for format in ("fp32", "fp16", "int8"):
        encoder = embedge.Encoder(folder / f"model.{format}.onnx", threads=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", embedge.TruncationWarning)
            vectors = encoder.encode(words)
            single = np.array([encoder.encode(text) for text in words])
        cosine = (vectors.astype(np.float64) * reference).sum(1)
        cosines[format] = (float(cosine.min()), float(cosine.mean()))
        cut = cut or encoder.truncated > 0
        if np.array_equal(vectors, single):
            invariant.add(format)
    session = ort.InferenceSession(folder / "model.fp32.onnx")
    differences = [
        np.abs(session.run(["sentence_embedding"], feeds)[0] - expected).max()
        for feeds, expected in padded.values()
    ]
    spread = float((reference @ reference.T)[~np.eye(len(words), dtype=bool)].mean())
    by_lanes = traced.by_lanes(onnx.load(folder / "model.int8.onnx")) ^ architecture.by_lanes
    nodes = onnx.load(folder / "model.fp32.onnx").graph.node
    return Verified(
        spread,
        cosines,
        invariant,
        padding=float(max(differences)),
        cut=cut,
        by_lanes=frozenset(by_lanes),
        fused=sum(fused(node) is not None for node in nodes),
        nodes=len(nodes),
    )


def _padded(source: Source, side: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs of a padded batch, int64 (8, sequence), and PyTorch's vectors of it."""
    tokenizer = source.model.tokenizer
    tokenizer.padding_side = side
    feeds = tokenizer(
        texts()[4:12], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    feeds = {name: feeds[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        vectors = source.model(dict(feeds))["sentence_embedding"].numpy()
    return {name: value.numpy() for name, value in feeds.items()}, vectors


def _stir(model: torch.nn.Module) -> None:
    """Move what initializers leave at 0 or 1 (norms, biases, the pad token): it hides mistakes."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx] += 0.1 * torch.randn(module.embedding_dim)


def _corpus() -> list[str]:
    """What the tokenizers learn from: few characters, so that small vocabularies hold them."""
    return [text for text in calibration_texts() if text and max(map(ord, text)) < 0x250]


def _pieces(texts: Iterable[str], front: str, longest: int) -> list[tuple[str, int]]:
    """The most frequent parts of words with their counts: all characters, then the rest by weight.

    Parts that start a word and those within one are told apart by ``front``. It is what trainers
    of WordPiece and Unigram start from; theirs break ties another way in every process.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        for word in text.split():
            marked = [*word]
            for start in range(len(marked)):
                for end in range(start + 1, min(start + longest, len(marked)) + 1):
                    part = "".join(marked[start:end])
                    counts[(front if start == 0 else "") + part] += 1
    single = sorted(part for part in counts if len(part.removeprefix(front)) == 1)
    weight = {part: -count * len(part) for part, count in counts.items() if part not in single}
    rest = sorted(weight, key=lambda part: (weight[part], part))
    return [(part, counts[part]) for part in [*single, *rest][:VOCABULARY]]


def _word_piece(kind: type) -> PreTrainedTokenizerFast:
    special = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    order = ["[PAD]", *special.values()]
    if "MPNet" in kind.__name__:
        special = {"cls": "<s>", "sep": "</s>", "unk": "[UNK]", "mask": "<mask>"}
        order = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    pad = next(token for token in order if "pad" in token.lower())
    normalizer = normalizers.BertNormalizer()
    found = _pieces(map(normalizer.normalize_str, _corpus()), "\0", 8)
    parts = [part[1:] if part.startswith("\0") else f"##{part}" for part, _ in found]
    vocabulary = {part: i for i, part in enumerate([*order, *parts])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _finished(kind, tokenizer, pad, special, ("cls", "sep"))


def _byte_level_bpe(kind: type) -> PreTrainedTokenizerFast:
    name = kind.__name__
    if "Roberta" in name:
        special = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>", "cls": "<s>"}
        special["sep"] = "</s>"
        order, around = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], ("cls", "sep")
    elif "Qwen" in name:
        special, around = {"eos": "<|im_end|>"}, ("", "pad")
        order = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    else:  # ModernBERT's
        special = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        order, around = ["[PAD]", *special.values()], ("cls", "sep")
    pad = next((token for token in order if "pad" in token.lower()), "<|endoftext|>")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = train.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=order,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _finished(kind, tokenizer, pad, special, around)


def _unigram(kind: type) -> PreTrainedTokenizerFast:
    special = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    special |= {"cls": "<s>", "sep": "</s>"}
    order, around = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], ("cls", "sep")
    if "T5" in kind.__name__:
        special, around = {"eos": "</s>", "unk": "<unk>"}, ("", "eos")
        order = ["<pad>", "</s>", "<unk>"]
    elif kind.__name__.startswith(("Albert", "Deberta")):
        special = {"cls": "[CLS]", "sep": "[SEP]", "unk": "<unk>", "mask": "[MASK]"}
        order = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    found = _pieces(_corpus(), "▁", 8)
    total = sum(count for _, count in found)
    scored = [(part, math.log(count / total)) for part, count in [("▁", 1), *found]]
    vocabulary = [*((token, 0.0) for token in order), *scored]
    tokenizer = Tokenizer(models.Unigram(vocabulary, order.index("<unk>"), False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(" {2,}", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _finished(kind, tokenizer, "<pad>", special, around)


def _byte_fallback_bpe(kind: type) -> PreTrainedTokenizerFast:
    order = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    special = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    trainer = train.BpeTrainer(
        vocab_size=VOCABULARY + 256,
        special_tokens=order,
        initial_alphabet=sorted({letter for text in _corpus() for letter in text} - {" "}),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _finished(kind, tokenizer, "<pad>", special, ("bos", "eos"))


def _finished(
    kind: type,
    tokenizer: Tokenizer,
    pad: str,
    special: dict[str, str],
    around: tuple[str, str],
) -> PreTrainedTokenizerFast:
    """Put special tokens ``around`` every text, and wrap in a class of transformers."""
    before, after = ((special | {"pad": pad}).get(which) for which in around)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(part for part in (before, "$A", after) if part),
        special_tokens=[
            (token, tokenizer.token_to_id(token)) for token in {before, after} if token
        ],
    )
    names: dict[str, Any] = {f"{key}_token": token for key, token in special.items()}
    if kind is PreTrainedTokenizerFast:  # its default has token types as well
        names["model_input_names"] = ["input_ids", "attention_mask"]
    return kind(tokenizer_object=tokenizer, pad_token=pad, model_max_length=TOKENS, **names)


TOKENIZERS: dict[str, Callable[[type], PreTrainedTokenizerFast]] = {
    "WordPiece": _word_piece,
    "byte-level BPE": _byte_level_bpe,
    "Unigram": _unigram,
    "BPE with byte fallback": _byte_fallback_bpe,
}
