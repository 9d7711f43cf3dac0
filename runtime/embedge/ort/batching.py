"""Token counts to micro-batches under a token budget.

A micro-batch holds sequences of one length only, so nothing is ever padded. That is what makes a
vector independent of its neighbours to the last bit (a padded softmax or sum may round its tail
differently), and it is also the fastest: no padding is computed, and no mask is needed.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

# Tokens of one micro-batch. More, up to 2048, make no short text faster, and two long ones at once
# are 4 % slower than one by one: their attention leaves the cache (the default model, AMD Zen 4).
TOKEN_BUDGET = 384


def micro_batches(
    lengths: NDArray[np.int64], workers: int, budget: int = TOKEN_BUDGET
) -> list[NDArray[np.intp]]:
    """Group sequences of equal length into micro-batches.

    Args:
        lengths: token count of each sequence, shape (n,).
        workers: how many micro-batches will run side by side; a small input is split so that
            each has a share.
        budget: tokens a micro-batch may hold; a longer sequence is a micro-batch of its own.

    Returns:
        Arrays of positions in ``lengths``; each position is in exactly one of them. Longest
        sequences first, so that the last one to finish is short.
    """
    if len(lengths) < 2:  # a text alone has nobody to be grouped with
        return [np.arange(1)] * len(lengths)
    share = -(-int(lengths.sum()) // workers)
    budget = min(budget, share)
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    batches = []
    for group in np.split(order, starts):
        size = max(1, budget // max(1, int(lengths[group[0]])))
        batches += [group[i : i + size] for i in range(0, len(group), size)]
    return batches


def run_batches(
    run: Callable[[NDArray[np.intp]], None], batches: list[NDArray[np.intp]], threads: int
) -> Iterator[NDArray[np.intp]]:
    """Call ``run`` on every micro-batch, up to ``threads`` side by side; yield each when done.

    The first error, or Ctrl-C, stops what has not started and is raised when the rest has ended.
    The threads end with the call: none idles, and none has to survive a fork.
    """
    if threads == 1 or len(batches) < 2:
        for batch in batches:
            run(batch)
            yield batch
        return
    from concurrent.futures import ThreadPoolExecutor, as_completed  # the first text needs none

    pool = ThreadPoolExecutor(min(threads, len(batches)), thread_name_prefix="embedge")
    try:
        futures = {pool.submit(run, batch): batch for batch in batches}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    finally:
        pool.shutdown(cancel_futures=True)
