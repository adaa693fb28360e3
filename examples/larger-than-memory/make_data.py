"""Make samples of two classes, block by block: only one block is in memory at a time.

python make_data.py samples.zarr --samples 5000000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import zarr

FEATURES = 10
BLOCK = 100_000
NOISE = 2.0


def make(path: Path, n_samples: int, block: int = BLOCK) -> None:
    """Write ``x0`` … and ``label`` along ``sample``, in chunks of `block` samples."""
    group = zarr.open_group(path, mode="w-")
    for column in range(FEATURES):
        _create(group, f"x{column}", n_samples, block, "float32")
    _create(group, "label", n_samples, block, "int8")
    weights = np.random.default_rng(0).normal(size=FEATURES)
    for first in range(0, n_samples, block):
        rng = np.random.default_rng([1, first])
        piece = slice(first, min(first + block, n_samples))
        X = rng.normal(size=(piece.stop - first, FEATURES)).astype("float32")
        for column in range(FEATURES):
            group[f"x{column}"][piece] = X[:, column]
        group["label"][piece] = X @ weights + rng.normal(0, NOISE, len(X)) > 0


def _create(group: zarr.Group, name: str, n_samples: int, block: int, dtype: str) -> None:
    group.create_array(
        name,
        shape=(n_samples,),
        chunks=(min(block, n_samples),),
        dtype=dtype,
        dimension_names=["sample"],
    )


def main() -> None:
    """Make what the command line says."""
    parser = argparse.ArgumentParser(description="Make samples of two classes.")
    parser.add_argument("out", metavar="OUT.zarr", type=Path)
    parser.add_argument("--samples", type=int, default=5_000_000)
    parser.add_argument("--block", type=int, default=BLOCK, help="samples of a chunk")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists: remove it or choose another name")
    with tempfile.TemporaryDirectory(prefix=f"{given.out.name}.", dir=given.out.parent) as folder:
        unfinished = Path(folder) / given.out.name
        make(unfinished, given.samples, given.block)
        unfinished.rename(given.out)
    print(f"{given.out}: {given.samples:,} samples × {FEATURES} features")


if __name__ == "__main__":
    main()
