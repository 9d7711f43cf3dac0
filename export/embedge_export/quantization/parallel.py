"""Independent work on all CPUs of this process, with the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from embedge.ort.threads import available_cpus

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], most: int | None = None
) -> Iterator[Result]:
    """Yield ``function(item)`` of each item, in order; ``function`` runs in threads.

    Args:
        function: must release the GIL in its long parts, as NumPy and onnxruntime do.
        items: taken as fast as results are, and at most two a thread ahead of them.
        most: threads at most; None is all the CPUs that this process may use.

    Raises:
        Exception: the first, in order, that ``function`` raised; what has not begun never does.
    """
    threads = min(available_cpus(), most or available_cpus())
    pool = ThreadPoolExecutor(threads, thread_name_prefix="embedge-export")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == 2 * threads:  # a slow item keeps the other threads busy so long
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
