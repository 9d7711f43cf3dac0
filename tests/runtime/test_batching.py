import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from embedge.ort.batching import micro_batches, run_batches


def grouped(lengths: list[int], workers: int = 1, budget: int = 12) -> list[list[int]]:
    batches = micro_batches(np.array(lengths, np.int64), workers, budget)
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize(
    ("lengths", "workers", "batches"),
    [
        ([], 1, []),
        ([5], 1, [[0]]),
        ([3, 5, 3, 5], 1, [[1, 3], [0, 2]]),
        # Four sequences of 4 tokens fit the budget of 12 three at a time.
        ([4, 4, 4, 4], 1, [[0, 1, 2], [3]]),
        # One longer than the budget is alone.
        ([13, 2, 13], 1, [[0], [2], [1]]),
        # Two workers share 8 tokens: 4 each.
        ([2, 2, 2, 2], 2, [[0, 1], [2, 3]]),
        ([0, 0], 1, [[0], [1]]),
    ],
)
def test_micro_batches_by_hand(lengths: list[int], workers: int, batches: list[list[int]]) -> None:
    assert grouped(lengths, workers) == batches


def test_every_sequence_is_in_one_batch_of_its_length_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    batches = micro_batches(lengths, workers=3, budget=100)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    for batch in batches:
        assert len(set(lengths[batch])) == 1
        assert lengths[batch].sum() <= 100 or len(batch) == 1
    firsts = [int(lengths[batch[0]]) for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_batch_runs_once_and_is_yielded_when_done(threads: int) -> None:
    batches = [np.array([i, i + 100]) for i in range(20)]
    ran: list[int] = []
    done = list(run_batches(lambda batch: ran.append(int(batch[0])), batches, threads))
    assert sorted(ran) == list(range(20))
    assert sorted(int(batch[0]) for batch in done) == list(range(20))


def test_at_most_so_many_threads_run_and_none_is_left() -> None:
    before = threading.active_count()
    names: set[str] = set()
    batches = [np.array([i]) for i in range(30)]
    list(run_batches(lambda batch: names.add(threading.current_thread().name), batches, 2))
    assert len(names) <= 2
    assert all(name.startswith("embedge") for name in names)
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_error_stops_what_has_not_started(threads: int) -> None:
    ran: list[int] = []

    def run(batch: NDArray[np.intp]) -> None:
        ran.append(int(batch[0]))
        if batch[0] == 0:
            raise ZeroDivisionError
        threading.Event().wait(0.02)

    with pytest.raises(ZeroDivisionError):
        list(run_batches(run, [np.array([i]) for i in range(200)], threads))
    assert len(ran) < 100
