import threading
from collections.abc import Iterator

import pytest

from embedge_export.quantization import parallel
from embedge_export.quantization.parallel import parallel_map


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_cpus", lambda: 4)


def test_results_come_in_order() -> None:
    done = [threading.Event() for _ in range(9)]
    done[8].set()

    def after_the_next(i: int) -> int:  # of each pair the second finishes first
        assert done[i + 1 if i % 2 == 0 else 8].wait(10)
        done[i].set()
        return i * i

    assert list(parallel_map(after_the_next, range(8))) == [0, 1, 4, 9, 16, 25, 36, 49]
    assert list(parallel_map(after_the_next, [])) == []


@pytest.mark.parametrize(("most", "threads"), [(None, 4), (2, 2), (9, 4)])
def test_as_many_at_a_time_as_there_are_cpus_and_no_more_than_allowed(
    most: int | None, threads: int
) -> None:
    together = threading.Barrier(threads)
    taken = []

    def items() -> Iterator[int]:
        for i in range(3 * threads):
            taken.append(i)
            yield i

    results = parallel_map(lambda i: (together.wait(10), i)[1], items(), most)
    assert next(results) == 0
    assert len(taken) == 2 * threads
    assert list(results) == list(range(1, 3 * threads))


def test_an_error_ends_it_and_starts_nothing_more() -> None:
    begun = []

    def third_fails(i: int) -> int:
        begun.append(i)
        if i == 2:
            raise ValueError("the third")
        return i

    results = parallel_map(third_fails, range(100))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    assert len(begun) <= 10
    assert not [t for t in threading.enumerate() if t.name.startswith("embedge-export")]
