"""Vectors on a Spark cluster: Parquet with columns id and text, to Parquet with id and vector.

    python -m pip install embedge pyspark pandas pyarrow
    spark-submit examples/spark.py INPUT OUTPUT [MODEL]

One Encoder a task, at one thread, as Spark runs a task a core. MODEL must be at the same path on
every machine; without it, it is the model in the package. A task that is lost is run again by
Spark, and gives the same vectors.
"""

import sys
from collections.abc import Iterable, Iterator
from functools import partial

import pandas as pd
from pyspark.sql import SparkSession

from embedge import Encoder


def embed(batches: Iterable[pd.DataFrame], model: str | None) -> Iterator[pd.DataFrame]:
    """Encode the batches of one task."""
    encoder = Encoder(model, threads=1)
    for batch in batches:
        vectors = encoder.encode_document(batch["text"])  # (rows, dim)
        yield pd.DataFrame({"id": batch["id"], "vector": list(vectors)})


def main(source: str, output: str, model: str | None = None) -> None:
    """Encode ``source`` into ``output``."""
    spark = SparkSession.builder.appName("embedge").getOrCreate()
    rows = spark.read.parquet(source).select("id", "text")
    kind = rows.schema["id"].dataType.simpleString()
    vectors = rows.mapInPandas(partial(embed, model=model), f"id {kind}, vector array<float>")
    vectors.write.parquet(output)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
