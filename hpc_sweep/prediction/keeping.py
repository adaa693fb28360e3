"""The models that a worker keeps between boxes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from distributed import get_worker
from numpy.typing import NDArray

from hpc_sweep.models import Models

KEPT_SHARE = 0.6
"""Models are kept until a worker uses so much of its memory."""


@dataclass
class Kept:
    """Models that a worker has, until it needs their memory.

    Parameters
    ----------
    models : Models
        Where they come from.
    """

    models: Models
    _kept: dict[tuple[int, ...], Any] = field(default_factory=dict)
    seconds: float = 0.0

    def of(self, partitions: NDArray[np.intp]) -> dict[tuple[int, ...], Any]:
        """Return models by partition; None where there is none.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_dims)
            Of the store; −1 along any dimension: it has no such partition.
        """
        wanted = [tuple(each) for each in partitions.tolist()]
        begin = time.perf_counter()
        lacking = [each for each in wanted if min(each, default=0) >= 0 and each not in self._kept]
        if lacking:
            if _memory_is_short():
                self._kept = {each: self._kept[each] for each in wanted if each in self._kept}
            places = np.array(lacking, dtype=np.intp).reshape(len(lacking), partitions.shape[1])
            self._kept |= zip(lacking, self.models.of(places), strict=True)
        self.seconds += time.perf_counter() - begin
        return {each: self._kept.get(each) for each in wanted}

    def reasons(self, places: Sequence[tuple[int, ...]]) -> dict[int, str]:
        """Return why some of the partitions have no model although they should, by position."""
        found = ((i, self.models.reasons.get(place, "")) for i, place in enumerate(places))
        return {i: reason for i, reason in found if reason}


def _memory_is_short() -> bool:
    limit = get_worker().memory_manager.memory_limit
    if not limit:  # then the machine's is all workers'
        return bool(psutil.virtual_memory().percent > 100 * KEPT_SHARE)
    return bool(psutil.Process().memory_info().rss > KEPT_SHARE * limit)
