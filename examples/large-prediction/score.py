"""How many predictions are right, chunk by chunk: neither store is ever in memory as a whole.

python score.py predicted.zarr new.zarr
"""

from __future__ import annotations

import sys

import xarray as xr


def accuracy(predicted: str, new: str) -> float:
    """Return the part of the samples whose predicted label is the one that they have."""
    labels = (xr.open_zarr(store, consolidated=False)["label"] for store in (predicted, new))
    return float((next(labels) == next(labels)).mean())


if __name__ == "__main__":
    print(f"accuracy {accuracy(*sys.argv[1:]):.4f}")
