"""Export a sentence transformer into one model file. Needs the extra: `embedge[export]`.

from embedge_export import export

export("sentence-transformers/all-MiniLM-L6-v2", "model.onnx")
"""

from typing import TYPE_CHECKING, Any

from embedge_export.recipe import Recipe

if TYPE_CHECKING:
    from embedge_export.pipeline import export, export_all

__all__ = ["Recipe", "export", "export_all"]


def __getattr__(name: str) -> Any:
    """Import the pipeline when it is first asked for: it brings PyTorch."""
    if name not in ("export", "export_all"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from embedge_export.cli import load_pipeline

    return getattr(load_pipeline(), name)
