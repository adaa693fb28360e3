"""What is handed out: units, inside result chunks, of which several drivers have shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Chunk = tuple[int, ...]
"""Index of a result chunk along the partition dimensions."""


@dataclass(frozen=True, order=True)
class Unit:
    """What one task evaluates: a block of partitions × candidates inside one result chunk.

    Attributes
    ----------
    chunk : tuple of int
        The result chunk.
    start, stop : int
        Partitions, as positions in the chunk's reading order.
    first, last : int
        Columns, `last` excluded: candidates, or the one column of a strategy that needs all
        candidates of a partition together.
    """

    chunk: Chunk
    start: int
    stop: int
    first: int
    last: int

    @property
    def n_cells(self) -> int:
        """How many (partition, column) pairs it holds."""
        return (self.stop - self.start) * (self.last - self.first)

    @property
    def key(self) -> str:
        """The unit as text: chunk, partitions, columns."""
        return f"{'.'.join(map(str, self.chunk))}_{self.start}-{self.stop}_{self.first}-{self.last}"


@dataclass(frozen=True)
class Share:
    """What one of several drivers of a store does: a range of its result chunks.

    Attributes
    ----------
    index, count : int
        The `index`-th of `count` ranges, from 1.
    """

    index: int = 1
    count: int = 1

    def of(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Return the result chunks of this share; shares differ by one chunk at the most."""
        first, last = ((i * len(chunks)) // self.count for i in (self.index - 1, self.index))
        return chunks[first:last]

    def __str__(self) -> str:
        return "" if self == WHOLE else f"-{self.index}-of-{self.count}"


WHOLE = Share()
