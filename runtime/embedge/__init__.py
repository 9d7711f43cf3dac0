"""Sentence vectors at the edge: one quantized ONNX file, run anywhere.

from embedge import Encoder

encoder = Encoder()
vectors = encoder.encode(["A man is eating food.", "Someone is having a meal."])
"""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from embedge.encoder import Encoder
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

if not TYPE_CHECKING:  # a checker would take any name for one that is here

    def __getattr__(name: str) -> object:
        """Import what needs NumPy when it is first used: the command answers, and stops, sooner."""
        if name == "Encoder":  # import statements, which programs that make bundles follow
            from embedge import encoder as module
        elif name == "TruncationWarning":
            from embedge.text import overflow as module
        else:
            raise AttributeError(f"module 'embedge' has no attribute {name!r}")
        value = globals()[name] = getattr(module, name)
        return value

    def __dir__() -> list[str]:
        return __all__
