"""Load each mutant that arrives on standard input, and encode with it.

The answer to each is a line of JSON: the verdict, and this process's peak memory.
"""

import json
import os
import resource
import struct
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import embedge.ort.probes  # noqa: F401  # what the first Encoder would import
from embedge import EmbedgeError, Encoder

ADDRESS_SPACE = 8 * 2**30  # far above the resident memory that is allowed; protects the machine
TEXTS = ["a b", "", "c", "a b c" * 40, "\0 x 🙂", "B a", "a b"]


def verdict_on(path: Path) -> str:
    try:
        encoder = Encoder(path, threads=1)
        vectors = encoder.encode(TEXTS)
    except EmbedgeError as error:
        if "bad_alloc" in str(error):
            return "broken: it ran out of memory"
        return f"refused when run: {error}"
    if not np.isfinite(vectors).all():
        return "broken: its vectors are not finite"
    if encoder.info["normalized"] and np.abs(np.linalg.norm(vectors, axis=1) - 1).max() > 0.01:
        return "broken: its vectors are not of unit length"
    return "accepted"


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    warnings.simplefilter("ignore")
    seen: list[str] = []
    stream, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be mistaken for an answer
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.onnx"
        allowed = (str(path), "/sys/fs/cgroup", "/proc/self/cgroup")

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            opens = event == "open" and not str(arguments[0]).startswith(allowed)
            if opens or event.startswith(("socket.", "subprocess.", "ctypes.dlopen", "os.exec")):
                seen.append(f"{event} {arguments}")

        path.touch()
        verdict_on(path)  # imports what is imported on first use
        sys.addaudithook(watch)
        while header := stream.read(8):
            (size,) = struct.unpack("<Q", header)
            path.write_bytes(stream.read(size))
            try:
                verdict = verdict_on(path)
            except BaseException as error:
                verdict = f"broken: {error!r}"
            if seen:
                verdict = f"broken: it did {seen}"
                seen.clear()
            megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            answers.write(json.dumps([verdict, megabytes]).encode() + b"\n")
            answers.flush()


if __name__ == "__main__":
    main()
