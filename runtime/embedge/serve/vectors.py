"""Vectors as a client wants them: JSON numbers, or base64 of little-endian float32."""

import base64
import json
from collections.abc import Iterator

from embedge.pipeline import Vectors

FORMATS = ("float", "base64")


def json_vectors(vectors: Vectors, form: str) -> Iterator[str]:
    """Yield each row as JSON. Row by row, so that the GIL is released between."""
    for row in vectors:
        if form == "base64":
            yield f'"{base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")}"'
        else:
            yield json.dumps(row.tolist())
