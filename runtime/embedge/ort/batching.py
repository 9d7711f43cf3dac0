"""Sequences of token ids to micro-batches under a token budget, and results back into order.

A micro-batch holds sequences of one length only, so nothing is ever padded. That is what makes a
vector independent of its neighbours to the last bit (a padded softmax or sum may round its tail
differently), and it is also the fastest: no padding is computed, and no mask is needed.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

# Tokens of one micro-batch. Larger budgets, up to 2048, make short texts no faster, and two long
# texts in one batch are 4 % slower than one by one: their attention exceeds the cache (default
# model, AMD Zen 4).
TOKEN_BUDGET = 384


Item = TypeVar("Item")


class TokenSequence(NamedTuple):
    """What the model is given of a text: all of it, or one of its windows.

    Attributes:
        number: its place among all sequences of the call.
        ids: token ids with special tokens, int32 (length,).
        last: it is the last of its text.
        weight: its weight in the mean of its text's windows.
    """

    number: int
    ids: NDArray[np.int32]
    last: bool
    weight: int = 1


class Waiting:
    """Sequences that wait to be encoded, grouped by their length.

    Attributes:
        tokens: of all that wait.
    """

    def __init__(self, budget: int = TOKEN_BUDGET) -> None:
        """``budget``: tokens of a micro-batch; a longer sequence is one of its own."""
        self._budget = budget
        self._groups: dict[int, deque[TokenSequence]] = {}
        self.tokens = 0

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, sequence: TokenSequence) -> None:
        """Add a sequence; their numbers have to grow."""
        self._groups.setdefault(len(sequence.ids), deque()).append(sequence)
        self.tokens += len(sequence.ids)

    def split_between(self, workers: int) -> None:
        """Make micro-batches so small from now on that each worker gets a share of what waits."""
        self._budget = min(self._budget, -(-self.tokens // workers))

    def take(self, oldest: bool) -> list[TokenSequence]:
        """The next micro-batch: of the length of the oldest sequence, or of the longest.

        Longest first, the last one to finish is short; oldest first, results can be given in order
        early.
        """
        if oldest:
            length = min(self._groups, key=lambda length: self._groups[length][0].number)
        else:
            length = max(self._groups)
        group = self._groups[length]
        size = max(1, self._budget // max(1, length))
        batch = list(islice(group, size))
        for _ in batch:
            group.popleft()
        if not group:
            del self._groups[length]
        self.tokens -= length * len(batch)
        return batch


class InOrder(Generic[Item]):
    """What is finished in any order, given in the order of its numbers 0, 1, 2 ..."""

    def __init__(self) -> None:
        self._finished: dict[int, Item] = {}
        self._next = 0

    def add(self, number: int, item: Item) -> None:
        """Keep an item until those of all smaller numbers are there."""
        self._finished[number] = item

    def take(self) -> Iterator[Item]:
        """Give the items that are next, each once."""
        while self._next in self._finished:
            self._next += 1
            yield self._finished.pop(self._next - 1)
