"""Sentence vectors at the edge: one quantized ONNX file, run anywhere.

from embedge import Encoder

encoder = Encoder()
vectors = encoder.encode(["A man is eating food.", "Someone is having a meal."])
"""

from embedge.encoder import Encoder, TruncationWarning
from embedge.errors import (
    EmbedgeError,
    ExportError,
    ModelError,
    OptionError,
    ProviderError,
    TextError,
    TextTooLongError,
)

__version__ = "0.1.0"

__all__ = [
    "EmbedgeError",
    "Encoder",
    "ExportError",
    "ModelError",
    "OptionError",
    "ProviderError",
    "TextError",
    "TextTooLongError",
    "TruncationWarning",
    "__version__",
]
