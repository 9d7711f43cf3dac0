"""Sentence vectors at the edge: one quantized ONNX file, run anywhere.

from embedge import Encoder

encoder = Encoder()
vectors = encoder.encode(["A man is eating food.", "Someone is having a meal."])
"""

from embedge.encoder import Encoder
from embedge.errors import (
    ClosedError,
    CorpusError,
    EmbedgeError,
    ExportError,
    InstallationError,
    ModelError,
    OptionError,
    ProviderError,
    ResourceError,
    TextError,
    TextTooLongError,
)
from embedge.text.overflow import TruncationWarning

__version__ = "0.1.0"

__all__ = [
    "ClosedError",
    "CorpusError",
    "EmbedgeError",
    "Encoder",
    "ExportError",
    "InstallationError",
    "ModelError",
    "OptionError",
    "ProviderError",
    "ResourceError",
    "TextError",
    "TextTooLongError",
    "TruncationWarning",
    "__version__",
]
