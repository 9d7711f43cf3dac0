"""Mutations of model files, and the oracle that tests each of them; used by fuzz_modelfile.

A mutation knows protobuf: it changes, drops, doubles, moves or borrows a field at any depth and
corrects the lengths around it, so that most mutants are well-formed and reach what lies behind the
parser. It also knows the metadata: it rewrites the settings and the tokenizer as JSON. Part of the
mutants are given a fingerprint that fits, as an attacker would.
"""

import base64
import json
import random
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import numpy as np  # noqa: E402
from tests.runtime import tiny  # noqa: E402

from embedge.errors import ModelError  # noqa: E402
from embedge.modelfile.file import fingerprint, parse  # noqa: E402
from embedge.modelfile.protobuf import spans  # noqa: E402
from embedge.modelfile.settings import ModelSettings  # noqa: E402
from embedge.modelfile.validate import walk  # noqa: E402

MOST_MEGABYTES = 2048  # resident, of a process that loads a mutant and encodes with it
MOST_SECONDS = 30
_DIGITS = re.compile(rb"embedge\.fingerprint\x12\x40([0-9a-f]{64})")
_NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 2**31, 2**70, 1.5, 1e308, "", "a ", "\0", "\ud7ff" * 9, [], [[]], {},
)  # fmt: skip
_OPERATORS = (
    "Add", "Mul", "Div", "MatMul", "Concat", "Expand", "Tile", "Range", "ConstantOfShape", "Pad",
    "Gather", "Reshape", "Cast", "If", "Loop", "Where", "Softmax", "Einsum", "TopK", "Identity",
    "CumSum", "ScatterND", "Conv", "OneHot", "Attention", "MatMulNBits", "QuantizeLinear",
)  # fmt: skip
_NAMES = (
    "table", "input_ids", "attention_mask", "mask", "tokens", "one", "smallest", "sum", "count",
    "mean", "length", "divisor", "sentence_embedding", "axes", "to", "axis", "value", "batch",
)  # fmt: skip

VERDICTS = ("refused by the reader", "refused when run", "accepted", "broken")

Field = tuple[int, int | bytes]


def seeds() -> list[bytes]:
    """Model files small enough to be mutated thousands of times a minute."""
    bomb = (
        *tiny.NODES[:-1],
        tiny.node("Shape", ["input_ids"], "shape"),
        tiny.node("Mul", ["shape", "times"], "larger"),
        tiny.node("ConstantOfShape", ["larger"], "zeros"),
        tiny.node("ReduceSum", ["zeros"], "zero", tiny.attribute("keepdims", 0)),
        tiny.node("Add", ["divisor", "zero"], "divisor too"),
        tiny.node("Div", ["mean", "divisor too"], "sentence_embedding"),
    )
    constant = tiny.field(5, tiny.tensor("times", np.array([1, 2], np.int64)))
    branch = tiny.graph(
        nodes=[tiny.node("Identity", ["mean"], "same")],
        inputs=(),
        outputs=[tiny.value_info("same", tiny.FLOAT32, ("batch", 2))],
    )
    choice = tiny.node(
        "If",
        ["yes"],
        "chosen",
        *(
            tiny.field(1, name) + tiny.field(6, branch) + tiny.field(20, 5)
            for name in ("then_branch", "else_branch")
        ),
    )
    asked = tiny.node("Equal", ["one", "one"], "yes")
    rest = [node.replace(b"\x04mean", b"\x06chosen") for node in tiny.NODES[7:]]
    return [
        tiny.model(),
        tiny.wide(24),
        tiny.model(tiny.graph(nodes=bomb, extra=constant)),
        tiny.model(tiny.graph(nodes=[*tiny.NODES[:7], asked, choice, *rest])),
    ]


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A mutant of ``data``, which may borrow fields from ``others``."""
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4, 8))):
        kind = chance.random()
        if kind < 0.15:
            data = _bytes(data, chance)
        elif kind < 0.3:
            data = _metadata(data, chance)
        else:
            data = _message(data, chance.choice(others), chance, depth=0)
    return refit(data) if chance.random() < 0.8 else data


def refit(data: bytes) -> bytes:
    """``data`` with the fingerprint that it should have; unchanged where there is none to have."""
    place = _DIGITS.search(data)
    try:
        found = walk(data)
        settings = ModelSettings.from_json(found.metadata["embedge.model"])
        raw = base64.b64decode(found.metadata["embedge.tokenizer"])
        tokenizer = zlib.decompressobj().decompress(raw, 2**20).decode()
        new = fingerprint(found.graph, found.opsets, tokenizer, settings).encode()
    except (ModelError, KeyError, ValueError, zlib.error):
        return data
    return data if place is None else data[: place.start(1)] + new + data[place.end(1) :]


def _bytes(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 8))):
        at = chance.randrange(len(changed) + 1)
        size = chance.choice((1, 1, 2, 4, 40))
        match chance.randrange(4):
            case 0:
                changed[at : at + size] = chance.randbytes(min(size, len(changed) - at))
            case 1:
                del changed[at : at + size]
            case 2:
                changed[at:at] = chance.randbytes(size)
            case _:
                source = chance.randrange(len(changed) + 1)
                changed[at:at] = changed[source : source + 40]
    return bytes(changed)


def _message(data: bytes, other: bytes, chance: random.Random, depth: int) -> bytes:
    """Mutate one field of a message, or one within it; bytes that are no message are noise."""
    mine, theirs = _split(data), _split(other)
    if not mine:
        return _leaf(data, chance)
    at = chance.randrange(len(mine))
    if depth == 0 and chance.random() < 0.6:
        at = next((i for i, (number, _) in enumerate(mine) if number == 7), at)  # the graph
    number, value = mine[at]
    inner = isinstance(value, bytes) and len(value) > 1 and depth < 9
    if inner and chance.random() < (0.95 if depth == 0 else 0.7):
        same = [b for n, b in theirs or [] if n == number and isinstance(b, bytes)]
        mine[at] = number, _message(value, chance.choice(same or [value]), chance, depth + 1)
    else:
        match chance.randrange(8):
            case 0:
                del mine[at]
            case 1:
                mine.insert(chance.randrange(len(mine) + 1), mine[at])
            case 2:
                mine.insert(chance.randrange(len(mine) + 1), mine.pop(at))
            case 3 if theirs:
                mine.insert(at, chance.choice(theirs))
            case 4:
                mine[at] = chance.choice((number + 1, number - 1 or 1, 14, 25)), value
            case _:
                mine[at] = number, _leaf(value, chance)
    return b"".join(tiny.field(number, value) for number, value in mine)


def _leaf(value: Any, chance: random.Random) -> Any:
    if isinstance(value, int):
        return chance.choice((*_NUMBERS, value + 1, max(0, value - 1), value * 2))
    if value.isascii() and value.decode().isprintable() and chance.random() < 0.9:
        return chance.choice(_OPERATORS if value.istitle() else _NAMES).encode()
    match chance.randrange(5):
        case 0:
            return b""
        case 1 if len(value) >= 8:
            at = chance.randrange(len(value) // 8) * 8
            number = chance.choice(_NUMBERS) % 2**64
            return value[:at] + number.to_bytes(8, "little") + value[at + 8 :]
        case 2 if len(value) >= 4:
            at = chance.randrange(len(value) // 4) * 4
            number = chance.choice((0.0, 1e38, -1e38, float("nan"), float("inf"), 1e-40, 3.0))
            return value[:at] + struct.pack("<f", number) + value[at + 4 :]
        case 3:
            return value + value
        case _:
            return _bytes(value, chance) if value else b"x"


def _split(data: bytes) -> list[Field]:
    """The fields of a message, or none where the bytes are not one."""
    try:
        found = list(spans(memoryview(data)))
    except ModelError:
        return []
    kept = [(n, value) for n, value, _ in found if value is not None]
    return [(n, value if isinstance(value, int) else bytes(value)) for n, value in kept]


def _metadata(data: bytes, chance: random.Random) -> bytes:
    """Rewrite one of the JSON values in the metadata."""
    entries = _split(data)
    places = [i for i, (n, value) in enumerate(entries) if n == 14 and isinstance(value, bytes)]
    if not places:
        return data
    at = chance.choice(places)
    pair = dict(_split(entries[at][1]))
    key, value = (pair.get(n, b"") for n in (1, 2))
    if not isinstance(key, bytes) or not isinstance(value, bytes):
        return data
    packed = key == b"embedge.tokenizer"
    try:
        text = zlib.decompress(base64.b64decode(value)) if packed else value
        value = json.dumps(_json(json.loads(text), chance)).encode()
    except (ValueError, zlib.error, RecursionError):
        value = _bytes(value, chance)
    if packed:
        value = base64.b64encode(zlib.compress(value))
    entries[at] = 14, tiny.field(1, key) + tiny.field(2, value)
    return b"".join(tiny.field(number, value) for number, value in entries)


def _json(value: Any, chance: random.Random) -> Any:
    if chance.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return chance.choice(_VALUES)
    changed = value.copy()
    key = chance.choice(list(changed) if isinstance(changed, dict) else range(len(value)))
    if chance.random() < 0.1:
        del changed[key]
    else:
        changed[key] = _json(changed[key], chance)
    return changed


class BrokenError(Exception):
    """A mutant broke a promise."""


class Oracle:
    """Whether a mutant is refused or accepted; raises BrokenError if it is neither.

    The reader comes first, in this process. What it accepts is loaded and encodes in another
    process, which is limited, watched, and restarted after every failure.
    """

    def __init__(self, keep: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.peak = 0
        self._keep = keep
        self._worker: subprocess.Popen[bytes] | None = None
        self._answers: Queue[bytes] = Queue()

    def figures(self) -> str:
        counts = ", ".join(f"{self.counts[what]:,} {what}" for what in VERDICTS)
        return f"{self.counts['files']:,} files: {counts}; peak memory {self.peak} MB"

    def __call__(self, data: bytes) -> str:
        self.counts["files"] += 1
        try:
            parse(data, Path("mutant"))
            verdict = self._loaded(data)
        except ModelError as error:
            verdict = f"refused by the reader: {error}"
        except Exception as error:
            verdict = f"broken: {error!r}"
        self.counts[verdict.partition(":")[0]] += 1
        if verdict.startswith("broken"):
            path = self._keep / f"broken-{self.counts['broken']}.onnx"
            path.write_bytes(data)
            raise BrokenError(f"{path}: {verdict}")
        return verdict

    def _loaded(self, data: bytes) -> str:
        if self._worker is None:
            self._start()
        worker = self._worker
        assert worker is not None
        assert worker.stdin is not None
        try:
            worker.stdin.write(struct.pack("<Q", len(data)) + data)
            worker.stdin.flush()
            answer = json.loads(self._answers.get(timeout=MOST_SECONDS) or b"null")
        except Empty:
            self.stop()
            return f"broken: it took more than {MOST_SECONDS} seconds"
        except BrokenPipeError:
            answer = None
        if answer is None:
            status = worker.wait()
            self.stop()
            return f"broken: the process that loaded it ended with status {status}"
        verdict, megabytes = answer
        self.peak = max(self.peak, megabytes)
        if megabytes > MOST_MEGABYTES:
            self.stop()
            return f"broken: it took {megabytes} MB"
        return str(verdict)

    def _start(self) -> None:
        self._worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answers = Queue()
        Thread(target=_pump, args=(self._worker.stdout, self._answers.put), daemon=True).start()

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None


def _pump(stream: Any, put: Callable[[bytes], None]) -> None:
    """Pass on lines until the stream ends, and then an empty one."""
    while line := stream.readline():
        put(line)
    put(b"")
