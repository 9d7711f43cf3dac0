"""What all tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def eval_data() -> Path:
    """The folder of evaluation data; tests that use it are skipped where there is none."""
    folder = os.environ.get("EMBEDGE_EVAL_DATA")
    if not folder:
        pytest.skip("set EMBEDGE_EVAL_DATA to the folder of evaluation data to run this test")
    return Path(folder)
