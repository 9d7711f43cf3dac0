"""What the adapters share: their framework's import, their Encoder, and work in a thread."""

import asyncio
import importlib
import threading
from collections.abc import Callable
from typing import Any

from embedge.encoder import Encoder
from embedge.errors import InstallationError, OptionError


def require(module: str, extra: str) -> Any:
    """Import a module of a framework, by name so that type checks and bundles do without it.

    Raises:
        InstallationError: it cannot be imported; names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InstallationError(
            f"{module} cannot be imported ({error}); install it with: "
            f'python -m pip install "embedge[{extra}]"'
        ) from error


def load(
    model: str | None, dim: int | None, threads: int | None, fingerprint: str | None = None
) -> Encoder:
    """Load an Encoder, which has to have the fingerprint that an index was built with, if any.

    Raises:
        OptionError: it has another one.
    """
    encoder = Encoder(model, dim=dim, threads=threads)
    check_fingerprint(encoder, fingerprint)
    return encoder


def check_fingerprint(encoder: Encoder, fingerprint: str | None) -> None:
    """Raise OptionError where an index was built with another model; None is any model."""
    if fingerprint not in (None, encoder.fingerprint):
        raise OptionError(
            f"expected the model with the fingerprint {str(fingerprint)[:16]}..., got "
            f"{encoder.fingerprint[:16]}...; use the model file that the index was built with, "
            "or build the index again"
        )


async def in_thread(encode: Callable[..., Any], texts: Any) -> Any:
    """Run a method of Encoder in a thread; cancelling stops it within a micro-batch per thread."""
    cancelled = threading.Event()

    def progress(done: int, total: int | None) -> None:
        if cancelled.is_set():
            raise asyncio.CancelledError

    work = asyncio.ensure_future(asyncio.to_thread(encode, texts, progress=progress))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([work])
        raise
