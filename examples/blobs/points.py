"""Blobs of points, made block by block where they are needed."""

from __future__ import annotations

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

CENTRES = np.array([[-6.0, -6.0], [-6.0, 6.0], [6.0, -6.0], [6.0, 6.0]])
DEVIATION = 1.0


def blobs(blocks: int = 500, points: int = 10_000) -> xr.Dataset:
    """Return variables ``x`` and ``y`` along ``point``, of so many blocks of so many points."""
    drawn = dask.array.map_blocks(
        _block,
        points,
        chunks=((points,) * blocks, (2,)),
        dtype="float64",
        meta=np.empty((0, 2)),
    )
    return xr.Dataset({name: ("point", drawn[:, axis]) for axis, name in enumerate("xy")})


def _block(points: int, block_info: dict[None, dict[str, tuple[int, int]]]) -> NDArray[np.float64]:
    rng = np.random.default_rng([0, block_info[None]["chunk-location"][0]])
    blob = rng.integers(len(CENTRES), size=points)
    return CENTRES[blob] + rng.normal(0, DEVIATION, (points, 2))
