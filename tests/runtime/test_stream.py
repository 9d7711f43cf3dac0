"""encode and encode_iter over many micro-batches: early, in order, bounded, and stopped."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedge import Encoder, OptionError, TextError
from embedge.streaming import encode_stream

from . import tiny

TEXTS = [" ".join("abc"[i // 3**k % 3] for k in range(i % 6)) for i in range(9000)]


@pytest.fixture
def wide(tmp_path: Path) -> Encoder:
    """Micro-batches of a few texts, on one thread, so that calls can be counted."""
    return Encoder(tiny.write(tmp_path / "x.onnx", tiny.wide(8)), threads=1)


def counted(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts in each micro-batch that runs from now on."""
    sizes: list[int] = []
    session = encoder._pipeline.session
    run = session.run

    def note(input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        sizes.append(len(input_ids))
        return run(input_ids)

    monkeypatch.setattr(session, "run", note)
    return sizes


def test_the_first_vectors_come_after_the_first_micro_batch(
    wide: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = wide.encode(TEXTS)
    sizes = counted(wide, monkeypatch)
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for text in TEXTS:
            read += 1
            yield text

    found = wide.encode_iter(texts())
    np.testing.assert_array_equal(next(found), expected[0])
    assert len(sizes) == 1
    assert read == 128
    for position in range(1, 5000):
        np.testing.assert_array_equal(next(found), expected[position])
        assert read - position <= 4096 + 128
    assert sum(sizes) <= read


def test_over_many_texts_micro_batches_are_as_full_as_those_of_encode(
    wide: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(wide, monkeypatch)
    wide.encode(TEXTS)
    batches = len(sizes)
    sizes.clear()
    for _ in wide.encode_iter(TEXTS):
        pass
    assert sum(sizes) == len(TEXTS)
    assert len(sizes) <= 1.2 * batches


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("overflow", ["truncate", "mean"])
@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_it_gives_what_encode_gives(tmp_path: Path, threads: int, overflow: Any) -> None:
    path = tiny.write(tmp_path / "x.onnx", tiny.wide(8))
    texts = [*TEXTS[:300], "a b c " * 30, *TEXTS[300:600], "b " * 50]
    encoder = Encoder(path, threads=threads)
    expected = encoder.encode(texts, overflow=overflow)
    one_by_one = np.stack([encoder.encode(text, overflow=overflow) for text in texts])
    np.testing.assert_array_equal(expected, one_by_one)
    found = np.stack(list(encoder.encode_iter(texts, overflow=overflow)))
    np.testing.assert_array_equal(found, expected)


def test_encode_takes_the_oldest_text_first_while_there_is_more_to_read(
    wide: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else short texts would wait to the end, and with them what may be read ahead."""
    monkeypatch.setattr("embedge.streaming._SLICE_TEXTS", 2)
    monkeypatch.setattr("embedge.streaming._AHEAD_TEXTS", 4)
    lengths: list[int] = []
    run = wide._pipeline.session.run

    def note(input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        lengths.append(input_ids.shape[1])
        return run(input_ids)

    monkeypatch.setattr(wide._pipeline.session, "run", note)
    wide.encode(["a", "a b c", "a b", "a b c", "a b c", "a b c d"])
    specials = lengths[0] - 1
    # Two micro-batches are submitted at a time, each of the texts that have been read by then.
    assert [length - specials for length in lengths] == [1, 3, 2, 3, 4]


def test_tokens_read_ahead_are_bounded(wide: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedge.streaming._SLICE_TEXTS", 1)
    monkeypatch.setattr("embedge.streaming._AHEAD_TOKENS", 4 * wide.count_tokens("a b c"))
    read: list[int] = []
    given = ["a b c"] * 20
    tokenize = wide._pipeline.tokenize

    def note(texts: list[str], start: int, *rest: Any) -> Any:
        read.append(start)
        return tokenize(texts, start, *rest)

    monkeypatch.setattr(wide._pipeline, "tokenize", note)
    sizes = counted(wide, monkeypatch)
    before: list[int] = []
    wide.encode(given, progress=lambda done, total: before.append(len(read)))
    assert sum(sizes) == 20
    assert before[0] == 4


def test_a_kept_vector_keeps_nothing_else(wide: Encoder) -> None:
    for vector in wide.encode_iter(TEXTS[:300]):
        assert vector.base is None
        assert vector.flags.writeable


@pytest.mark.parametrize("failure", ["raises", "not a str", "a surrogate"])
def test_what_comes_before_an_error_is_given_first(wide: Encoder, failure: str) -> None:
    def texts() -> Iterator[Any]:
        yield from TEXTS[:4100]
        if failure == "raises":
            raise LookupError("text 4100 is gone")
        yield 7 if failure == "not a str" else "\ud83d"
        yield from TEXTS

    found: list[NDArray[np.float32]] = []
    with pytest.raises(LookupError if failure == "raises" else TextError, match="text 4100 "):
        found.extend(wide.encode_iter(texts()))
    np.testing.assert_array_equal(np.stack(found), wide.encode(TEXTS[:4100]))


def test_encode_raises_an_error_of_a_text_before_it_computes_anything(
    wide: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(wide, monkeypatch)
    with pytest.raises(TextError, match="expected text 700 to be a str, got NoneType"):
        wide.encode([*TEXTS[:700], None])  # type: ignore[list-item]
    assert sizes == []


@pytest.mark.parametrize("threads", [1, 3])
def test_closing_the_iterator_stops_the_work(tiny_file: Path, threads: int) -> None:
    encoder = Encoder(tiny_file, threads=threads)
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "a"

    found = encoder.encode_iter(endless())
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "embedge" for thread in threading.enumerate())
    assert read == 128


def test_texts_that_do_not_know_how_many_they_are(wide: Encoder) -> None:
    """A sequence whose length is that of a stream raises TypeError, which `list` allows."""

    class Stream:
        def __iter__(self) -> Iterator[str]:
            return iter(["a", "b"])

        def __len__(self) -> int:
            raise TypeError("a stream has no length")

    told: list[int | None] = []
    found = list(wide.encode_iter(Stream(), progress=lambda done, total: told.append(total)))
    np.testing.assert_array_equal(found, wide.encode(Stream()))
    assert set(told) == {None}


def test_closing_the_iterator_closes_what_it_reads(
    wide: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not when nothing refers to it any more."""
    kept: list[Any] = []

    def keep(*arguments: Any) -> Any:
        kept.append(encode_stream(*arguments))
        return kept[0]

    monkeypatch.setattr("embedge.encoder.encode_stream", keep)
    found = wide.encode_iter(TEXTS[:300])
    next(found)
    assert kept[0].gi_frame is not None
    found.close()  # type: ignore[attr-defined]
    assert kept[0].gi_frame is None


def test_progress_is_told_after_every_micro_batch(
    wide: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(wide, monkeypatch)
    told: list[tuple[int, int | None]] = []
    wide.encode(TEXTS[:500], progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 500) for done in itertools.accumulate(sizes)]
    assert len(told) > 5
    for texts, total in ((iter(TEXTS[:500]), None), (TEXTS[:500], 500)):
        told.clear()
        for _ in wide.encode_iter(texts, progress=lambda done, total: told.append((done, total))):
            pass
        assert told[-1] == (500, total)
    told.clear()
    wide.encode("a", progress=lambda done, total: told.append((done, total)))
    wide.encode_query(["a", "a"], progress=lambda done, total: told.append((done, total)))
    wide.encode_document("a", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 1), (2, 2), (1, 1)]


class CancelledError(Exception):
    pass


@pytest.mark.parametrize("error", [CancelledError, KeyboardInterrupt])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_progress_raises_stops_the_call_within_a_micro_batch_per_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, error: type[BaseException]
) -> None:
    encoder = Encoder(tiny.write(tmp_path / "x.onnx", tiny.wide(8)), threads=threads)
    sizes = counted(encoder, monkeypatch)
    told: list[int] = []
    begun = 0

    def stop(done: int, total: int | None) -> None:
        nonlocal begun
        told.append(done)
        if len(told) == 3:
            begun = len(sizes)
            raise error("enough")

    with pytest.raises(error, match="enough"):
        encoder.encode(TEXTS, progress=stop)
    assert len(sizes) <= begun + threads
    assert len(told) == 3
    assert not any(thread.name == "embedge" for thread in threading.enumerate())
    assert encoder.encode(TEXTS[:10]).shape == (10, 8)


@pytest.mark.parametrize("progress", [None, 1, 0, "yes", np.True_])
def test_any_other_progress_is_refused(encoder: Encoder, progress: Any) -> None:
    message = r"expected progress to be True, False or a function of \(done, total\), got "
    for call in (encoder.encode, encoder.encode_iter, encoder.encode_query):
        with pytest.raises(OptionError, match=message):
            call(["a"], progress=progress)
