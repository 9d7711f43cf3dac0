"""Which sequences share a micro-batch, and which comes next."""

import numpy as np
import pytest

from embedge.ort.batching import InOrder, TokenSequence, Waiting


def waiting(lengths: list[int], budget: int = 12) -> Waiting:
    found = Waiting(budget)
    for number, length in enumerate(lengths):
        found.add(TokenSequence(number, np.zeros(length, np.int32), last=True))
    return found


def batches(found: Waiting, oldest: bool) -> list[list[int]]:
    taken = []
    while found:
        taken.append([sequence.number for sequence in found.take(oldest)])
    assert found.tokens == 0
    return taken


@pytest.mark.parametrize(
    ("lengths", "longest_first", "oldest_first"),
    [
        ([], [], []),
        ([5], [[0]], [[0]]),
        ([3, 5, 3, 5], [[1, 3], [0, 2]], [[0, 2], [1, 3]]),
        # Four sequences of 4 tokens fit the budget of 12 three at a time.
        ([4, 4, 4, 4], [[0, 1, 2], [3]], [[0, 1, 2], [3]]),
        # One longer than the budget is by itself.
        ([13, 2, 13], [[0], [2], [1]], [[0], [1], [2]]),
        ([2, 6, 2, 6, 6], [[1, 3], [4], [0, 2]], [[0, 2], [1, 3], [4]]),
        ([0, 0], [[0, 1]], [[0, 1]]),
    ],
)
def test_micro_batches_by_hand(
    lengths: list[int], longest_first: list[list[int]], oldest_first: list[list[int]]
) -> None:
    assert batches(waiting(lengths), oldest=False) == longest_first
    assert batches(waiting(lengths), oldest=True) == oldest_first


def test_two_workers_share_what_waits() -> None:
    """8 tokens between two are 4 each, and a share never exceeds the budget."""
    small = waiting([2, 2, 2, 2])
    small.split_between(2)
    assert batches(small, oldest=True) == [[0, 1], [2, 3]]
    large = waiting([4] * 12)
    large.split_between(2)
    assert {len(batch) for batch in batches(large, oldest=True)} == {3}


@pytest.mark.parametrize("oldest", [False, True])
def test_every_sequence_is_in_one_batch_of_its_length_within_the_budget(oldest: bool) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    found = batches(waiting(lengths.tolist(), 100), oldest)
    assert sorted(number for batch in found for number in batch) == list(range(500))
    for batch in found:
        assert len(set(lengths[batch])) == 1
        assert lengths[batch].sum() <= 100 or len(batch) == 1
    first = [int(lengths[batch[0]]) if not oldest else -batch[0] for batch in found]
    assert first == sorted(first, reverse=True)


def test_what_finishes_in_any_order_is_given_in_order() -> None:
    finished = InOrder[str]()
    assert list(finished.take()) == []
    finished.add(1, "b")
    assert list(finished.take()) == []
    finished.add(0, "a")
    finished.add(3, "d")
    assert list(finished.take()) == ["a", "b"]
    assert list(finished.take()) == []
    finished.add(2, "c")
    assert list(finished.take()) == ["c", "d"]
