"""Grid: all candidates in every partition, each for itself."""

from __future__ import annotations

from typing import cast

from hpc_sweep.spec import ApartSpec
from hpc_sweep.strategies.base import Strategy
from hpc_sweep.strategies.exchange import Partition, Request, Search, asked_once


class Grid(Strategy):
    """Every parameter setting of the models' grids."""

    @property
    def block_samples(self) -> int | None:
        """How many samples a block has at the least, for estimators of dask-ml."""
        return cast(ApartSpec, self.spec.search).block_samples

    def search(self, partition: Partition, first: int, last: int) -> Search:
        """Ask for all candidates of the unit at once."""
        return asked_once(Request((first, last), self.candidates[first:last]))
