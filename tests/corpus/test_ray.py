"""The job on a real local Ray cluster: two workers, one of them killed midway."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import Encoder, OptionError
from embedge.integrations.ray import EmbedBatch, EmbedOptions, embed_parquet

# Ray's own, and those of what it brings. SIGKILL: not on Windows.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL"),
]

CHANCE = random.Random(0)
TEXTS = [" ".join(CHANCE.choices("abc", k=CHANCE.randrange(1, 14))) for _ in range(3_000)]
FILES = 12
BATCH = 512  # so that each of two workers has several
REPORTS = "RAY_USAGE_STATS_ENABLED"


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    reason = "needs pip install 'embedge[ray]'"
    ray = pytest.importorskip("ray", reason=reason)
    pytest.importorskip("ray.data", reason=reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REPORTS, "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()


@pytest.fixture
def source(ray: Any, tmp_path: Path) -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(FILES):
        rows = range(i, len(TEXTS), FILES)
        table = pyarrow.table({"key": list(rows), "body": [TEXTS[row] for row in rows]})
        parquet.write_table(table, folder / f"{i}.parquet")
    return folder


def as_a_single_process(output: Path, encoder: Encoder) -> bool:
    """Whether a folder has each (id, vector) of a single process exactly once."""
    table = pytest.importorskip("pyarrow.parquet").read_table(output)
    ids = np.array(table["key"].to_pylist())
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    every_row_once = sorted(ids.tolist()) == list(range(len(TEXTS)))
    return every_row_once and np.array_equal(vectors, encoder.encode_document(TEXTS)[ids])


def dying_once(marker: str) -> type[EmbedBatch]:
    """An EmbedBatch of which one process, the first at its second batch, is killed."""

    class DyingOnce(EmbedBatch):
        calls = 0

        def __call__(self, batch: Any) -> Any:
            self.calls += 1
            if self.calls == 2:
                with suppress(FileExistsError):
                    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    return DyingOnce


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_two_workers_make_what_one_process_makes(
    ray: Any,
    source: Path,
    tmp_path: Path,
    model_file: Path,
    encoder: Encoder,
    kill: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, marker = tmp_path / "out", tmp_path / "killed"
    monkeypatch.setattr("embedge.integrations.ray._BATCH_TEXTS", BATCH)
    if kill:
        monkeypatch.setattr("embedge.integrations.ray.EmbedBatch", dying_once(str(marker)))
    options = EmbedOptions(model=str(model_file), column="body", id="key")
    assert embed_parquet(source, output, options, workers=2) == len(TEXTS)
    assert marker.exists() == kill
    assert as_a_single_process(output, encoder)
    assert f'"fingerprint": "{encoder.fingerprint}"' in (output / "_embedge.json").read_text()


def test_a_worker_with_another_model_refuses(model_file: Path) -> None:
    with pytest.raises(Exception, match=r"but 0{16}\.\.\. was expected; put the same file"):
        EmbedBatch(EmbedOptions(str(model_file)), fingerprint="0" * 64)


def test_a_folder_that_is_not_empty_is_refused(ray: Any, source: Path, model_file: Path) -> None:
    with pytest.raises(OptionError, match="is there already; give a folder that is new or empty"):
        embed_parquet(source, source, EmbedOptions(str(model_file)))


@pytest.mark.parametrize(("asked", "found"), [(None, "0"), ("1", "1")])
def test_ray_reports_nothing_unless_asked_to(
    ray: Any,
    source: Path,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str | None,
    found: str,
) -> None:
    monkeypatch.setenv(REPORTS, asked or "")
    if asked is None:
        monkeypatch.delenv(REPORTS)
    with pytest.raises(OptionError, match="is there already; give a folder that is new or empty"):
        embed_parquet(source, source, EmbedOptions(str(model_file)))
    assert os.environ[REPORTS] == found
