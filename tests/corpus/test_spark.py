"""The example for Spark, run on a local Spark."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedge import Encoder

EXAMPLE = Path(__file__).parents[2] / "examples" / "spark.py"
TEXTS = [" ".join("abc"[(i * j) % 3] for j in range(i % 12)) for i in range(3000)]


@pytest.mark.skipif(not shutil.which("java"), reason="needs Java, which Spark runs on")
def test_the_example_makes_what_one_process_makes(
    tmp_path: Path, model_file: Path, encoder: Encoder
) -> None:
    reason = "needs pip install pyspark pandas pyarrow"
    for library in ("pyspark", "pandas", "pyarrow"):
        pytest.importorskip(library, reason=reason)
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in").mkdir()
    for i in range(4):
        rows = range(i, len(TEXTS), 4)
        table = pyarrow.table({"id": list(rows), "text": [TEXTS[row] for row in rows]})
        parquet.write_table(table, tmp_path / "in" / f"{i}.parquet")
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "in"), str(tmp_path / "out")]
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    result = subprocess.run(
        [*command, str(model_file)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    table = parquet.read_table(tmp_path / "out")
    ids = np.array(table["id"].to_pylist())
    assert sorted(ids.tolist()) == list(range(len(TEXTS)))
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    assert np.array_equal(vectors, encoder.encode_document(TEXTS)[ids])
