"""Which boxes of a prediction are there, and which are handed out together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hpc_sweep.plan import UNITS_PER_WORKER, Chunk, Unit
from hpc_sweep.prediction.cutting import Cutting
from hpc_sweep.store import Folded, PartName


@dataclass
class Boxes:
    """Which boxes are there, as the driver's loop asks for what is done.

    Parameters
    ----------
    cutting : Cutting
        All boxes.
    open : set of int
        Those that are not there.
    """

    cutting: Cutting
    open: set[int]
    parts: Mapping[Chunk, list[PartName]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all boxes are there."""
        return not self.open

    def units(self, workers: int) -> Iterator[Unit]:
        """Yield what is left as ranges of boxes that have the same partitions."""
        alike = self.cutting.n_alike
        most = min(alike, -(-len(self.cutting) // (UNITS_PER_WORKER * workers)))
        for first in range(0, len(self.cutting), alike):
            left = [n for n in range(first, first + alike) if n in self.open]
            while left:
                count = 1
                while count < min(most, len(left)) and left[count] == left[0] + count:
                    count += 1
                yield Unit((), left[0], left[0] + count, 0, 1)
                left = left[count:]

    def complete(self) -> Iterable[Chunk]:
        """Return nothing: boxes are not folded."""
        return ()

    def add(self, name: PartName) -> bool:
        """Note that boxes are there."""
        self.open.difference_update(range(name.unit.start, name.unit.stop))
        return False

    def fold(self, chunk: Chunk, folded: Folded, most: int = 1) -> Sequence[Unit]:
        """Do nothing."""
        return ()
