"""The corpus job on a Ray cluster: Parquet to Parquet, one Encoder per actor.

Needs the extra `embedge[ray]`, and the same model file at the same path on every machine (the
default model is in the package). Ray restarts an actor when its process dies and repeats the
lost work; vectors do not depend on their batch, so the result is that of a single process.
"""

import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedge.corpus import arrow
from embedge.corpus.encoding import document_prompt
from embedge.corpus.job import check_dtype, describe
from embedge.encoder import Encoder
from embedge.errors import CorpusError, OptionError
from embedge.text.overflow import Overflow

METADATA_FILE = "_embedge.json"  # readers of Parquet folders skip names that begin with _

_BATCH_TEXTS = 4096
# Ray reads and writes with tasks of one CPU: with as many actors as CPUs, whole ones would leave
# them none, and the job would wait forever. `workers` is what limits the actors.
_ACTOR_CPUS = 0.5


@dataclass(frozen=True)
class EmbedOptions:
    """How rows are encoded, the same on every machine.

    Attributes:
        model, threads, dim: as for Encoder.
        column, id: names of the columns of the text and the id; the id's is kept.
        dtype, prompt, overflow: as for `embedge.corpus.job.embed_corpus`.
    """

    model: str | None = None
    threads: int | None = 1
    dim: int | None = None
    column: str = "text"
    id: str = "id"
    dtype: str = "float32"
    prompt: str | None = None
    overflow: Overflow = "truncate"

    def load(self) -> Encoder:
        """Load the model; raises OptionError where its vectors do not fit the dtype."""
        encoder = Encoder(self.model, threads=self.threads, dim=self.dim)
        check_dtype(self.dtype, encoder)
        return encoder


_DEFAULTS = EmbedOptions()


class EmbedBatch:
    """What an actor does: Arrow tables with a text column to tables of id and vector.

    Also of use as it is, with `ray.data.Dataset.map_batches(..., batch_format="pyarrow")`.

    Args:
        options: how.
        fingerprint: the model that is expected; None takes any.

    Raises:
        CorpusError: the model file on this machine is another one.
        OptionError: an option does not fit the model.
    """

    def __init__(
        self, options: EmbedOptions = _DEFAULTS, *, fingerprint: str | None = None
    ) -> None:
        self._options, self._encoder = options, options.load()
        if fingerprint not in (None, self._encoder.fingerprint):
            raise CorpusError(
                f"the model on this machine has the fingerprint {self._encoder.fingerprint[:16]}"
                f"..., but {str(fingerprint)[:16]}... was expected; put the same file everywhere"
            )
        self._layout = check_dtype(options.dtype, self._encoder)
        self._prompt = document_prompt(self._encoder, options.prompt)

    def __call__(self, batch: Any) -> Any:
        """Encode a batch, a pyarrow.Table.

        Raises:
            TextError: a text is null, or cannot be encoded.
        """
        options = self._options
        texts = batch[options.column].to_pylist()
        vectors = self._encoder.encode(texts, prompt=self._prompt, overflow=options.overflow)
        column = arrow.vector_column(self._layout.store(vectors))
        return batch.select([options.id]).append_column("vector", column)


def embed_parquet(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: EmbedOptions = _DEFAULTS,
    *,
    workers: int = 2,
) -> int:
    """Encode Parquet into a folder of Parquet with the columns id and vector, in any order.

    Runs on the cluster that this process is connected to, or on a local one, which sends no usage
    statistics unless RAY_USAGE_STATS_ENABLED is 1. The metadata (model, fingerprint, ...) is in
    the folder's `_embedge.json`, which appears when all is there.

    Args:
        source: a Parquet file or a folder of them.
        output: a folder that does not exist yet, or is empty.
        options: how.
        workers: actors, each with an Encoder of its own.

    Returns:
        How many rows were written.

    Raises:
        OptionError: ray is not installed, the folder is not empty, or an option does not fit.
        Exception: what Ray raises where a worker fails for good; its text holds our error.
    """
    ray_data = _ray_data()
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionError(f"{folder} is there already; give a folder that is new or empty")
    encoder = options.load()
    metadata = describe(encoder, options.dtype, options.prompt, options.overflow)
    rows = ray_data.read_parquet(os.fspath(source), columns=[options.id, options.column])
    _encode_rows(rows, options, encoder.fingerprint, workers).write_parquet(os.fspath(output))
    count = int(ray_data.read_parquet(os.fspath(output), columns=[options.id]).count())
    (folder / METADATA_FILE).write_text(json.dumps({**metadata, "rows": count}, indent=1) + "\n")
    return count


def _encode_rows(rows: Any, options: EmbedOptions, fingerprint: str, workers: int) -> Any:
    return rows.map_batches(
        EmbedBatch,
        fn_constructor_args=[options],
        fn_constructor_kwargs={"fingerprint": fingerprint},
        batch_format="pyarrow",
        batch_size=_BATCH_TEXTS,
        concurrency=workers,
        num_cpus=_ACTOR_CPUS,
    )


def _ray_data() -> Any:
    # A cluster that Ray starts would send usage statistics to its developers; now only on request.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray.data")
    except ImportError:
        raise OptionError('this needs an extra: python -m pip install "embedge[ray]"') from None
