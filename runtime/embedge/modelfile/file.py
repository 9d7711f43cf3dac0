"""The on-disk contract: one .onnx file that holds everything it needs.

The exporter writes through `metadata`, the runtime reads through `read`; docs/file-format.md
describes the bytes for readers in other languages. Format 1:

    embedge.format       "1"
    embedge.model        JSON object, see ModelSettings
    embedge.tokenizer    base64 of the zlib-compressed tokenizer.json
    embedge.probes       JSON list of objects, see Probe; vectors are base64 of float32 LE
    embedge.report       JSON object: what the export measured
    embedge.fingerprint  hexadecimal SHA-256, see `fingerprint`
"""

import base64
import binascii
import hashlib
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedge.errors import ModelError
from embedge.modelfile.probe import Probe, pack_probes, unpack_probes
from embedge.modelfile.settings import ModelSettings, dumps, loads
from embedge.modelfile.signature import check_signature
from embedge.modelfile.validate import Walked, walk

FORMAT = 1

_PREFIX = "embedge."
_MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit
_MAX_TOKENIZER_BYTES = 256 * 2**20  # the largest in use (262,144 tokens) has 33 MB
# What determines a vector besides the graph and the tokenizer.
_DECIDING = (
    "dim", "max_tokens", "pooling", "normalized", "prompts", "default_prompt", "prefix_ids",
    "suffix_ids",
)  # fmt: skip


@dataclass(frozen=True)
class ModelFile:
    """One checked model file; `data` is what was checked and what onnxruntime is to be given."""

    path: Path
    data: memoryview = field(repr=False)
    size: int
    settings: ModelSettings
    tokenizer_json: str = field(repr=False)
    probes: tuple[Probe, ...] = field(repr=False)
    report: Mapping[str, Any] = field(repr=False)
    fingerprint: str
    walked: Walked = field(repr=False)

    def describe(self) -> dict[str, Any]:
        """Everything in the file but weights, tokenizer and vectors, ready for JSON."""
        return {
            "path": str(self.path),
            "bytes": self.size,
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            **asdict(self.settings),
            "opsets": dict(self.walked.opsets),
            "operators": dict(sorted(self.walked.operators.items())),
            "tokenizer_bytes": len(self.tokenizer_json.encode()),
            "probes": [probe.text for probe in self.probes],
            "report": dict(self.report),
        }


def read(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> ModelFile:
    """Read and check a model file. Nothing else is opened and no code is loaded.

    Raises:
        ModelError: the path is not a file, or the file is damaged, truncated, too new or not ours.
    """
    path = Path(os.fsdecode(path))
    try:
        return parse(_bytes(path), path)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error.__cause__


def _bytes(path: Path) -> memoryview:
    try:
        size = _size(path)
        # NumPy allocates large pages where the system has them: reading takes a third of the time.
        data, filled = np.empty(size, np.uint8).data, 0
        with path.open("rb", buffering=0) as stream:
            while read := stream.readinto(data[filled:]):  # not always all at once
                filled += read
    except OSError as error:
        raise ModelError(
            f"cannot be read: {error.strerror or error}; check its permissions and its disk, or "
            "give the path of another file"
        ) from error
    return data[:filled].toreadonly()  # shorter where the file was cut meanwhile


def _size(path: Path) -> int:
    if not path.exists():
        raise ModelError(
            "there is no such file. embedge downloads nothing; give the path of a file made "
            "with 'embedge export', or no path for the model that ships with the package"
        )
    if path.is_dir():
        raise ModelError("this is a folder; give the path of the .onnx file itself")
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise ModelError(
            f"expected at most {_MAX_FILE_BYTES:,} bytes, as an ONNX file has, got {size:,}; give "
            "the path of a model file"
        )
    if not path.is_file():
        raise ModelError("this is a device or a pipe; give the path of a file")
    if size == 0:
        raise ModelError("the file is empty; fetch or export it again")
    return size


def parse(data: bytes | memoryview, path: Path) -> ModelFile:
    """Check the bytes of a model file, as `read` does; ``path`` only names them.

    Raises:
        ModelError: the bytes are damaged, truncated, too new or not ours.
    """
    walked = walk(data)
    values = walked.metadata
    _check_format(values)
    settings = ModelSettings.from_json(values["embedge.model"])
    tokenizer_json = _unpack_tokenizer(values["embedge.tokenizer"])
    expected = fingerprint(walked.graph, walked.opsets, tokenizer_json, settings)
    if values["embedge.fingerprint"] != expected:
        raise ModelError(
            "the file was damaged or changed after its export: its weights, graph, tokenizer or "
            f"settings have the fingerprint {expected[:16]}..., but it says "
            f"{values['embedge.fingerprint'][:16]!r}...; fetch or export it again"
        )
    check_signature(walked, settings)
    return ModelFile(
        path=path,
        data=memoryview(data),
        size=len(data),
        settings=settings,
        tokenizer_json=tokenizer_json,
        probes=unpack_probes(values["embedge.probes"], settings),
        report=loads(values["embedge.report"], "report", dict),
        fingerprint=expected,
        walked=walked,
    )


def metadata(
    settings: ModelSettings,
    tokenizer_json: str,
    probes: Sequence[Probe],
    report: Mapping[str, Any],
    graph: bytes | bytearray,
    opsets: Mapping[str, int],
) -> dict[str, str]:
    """The ``embedge.`` metadata of a file around a serialized GraphProto, in the order written."""
    return {
        "embedge.format": str(FORMAT),
        "embedge.model": settings.to_json(),
        "embedge.tokenizer": base64.b64encode(zlib.compress(tokenizer_json.encode(), 9)).decode(),
        "embedge.probes": pack_probes(probes),
        "embedge.report": dumps(report),
        "embedge.fingerprint": fingerprint(graph, opsets, tokenizer_json, settings),
    }


def fingerprint(
    graph: bytes | bytearray | memoryview,
    opsets: Mapping[str, int],
    tokenizer_json: str,
    settings: ModelSettings,
) -> str:
    """SHA-256 of everything that decides a vector, as 64 hexadecimal digits.

    Hashed in this order, each part after its length as 8 bytes, little endian: the serialized
    graph; the opsets as JSON; tokenizer.json; the deciding settings as JSON. Names, licenses,
    probes and the report are left out: they may change without changing a vector.
    """
    decisive = asdict(settings)
    parts = [
        graph,
        dumps(dict(opsets)).encode(),
        tokenizer_json.encode(),
        dumps({key: decisive[key] for key in _DECIDING}).encode(),
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _check_format(values: Mapping[str, str]) -> None:
    version = values.get("embedge.format")
    if version is None:
        raise ModelError(
            "this ONNX file was not made by embedge: it carries no tokenizer and no settings; "
            "export the model it came from with 'embedge export'"
        )
    if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        raise ModelError(
            f"expected embedge.format to be a number, got {version[:20]!r}; export it again"
        )
    if int(version) > FORMAT:
        raise ModelError(
            f"the file has format {version}, this embedge reads up to {FORMAT}: "
            "upgrade with 'python -m pip install --upgrade embedge'"
        )
    for key in ("model", "tokenizer", "probes", "report", "fingerprint"):
        if _PREFIX + key not in values:
            raise ModelError(
                f"the file is truncated or damaged: {_PREFIX}{key} is missing; "
                "fetch or export it again"
            )


def _unpack_tokenizer(text: str) -> str:
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(text, validate=True), _MAX_TOKENIZER_BYTES)
        if not inflate.eof:
            raise ModelError(
                f"expected a tokenizer of at most {_MAX_TOKENIZER_BYTES:,} bytes, got a larger or "
                "a truncated one; fetch or export it again"
            )
        return raw.decode("utf-8")
    except (binascii.Error, ValueError, zlib.error) as error:
        raise ModelError(
            f"the tokenizer in the file is damaged ({error}); fetch or export it again"
        ) from error
