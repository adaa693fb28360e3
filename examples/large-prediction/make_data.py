"""Make two stores of samples along ``sample``: a small one to train on, a large one to predict.

python make_data.py train.zarr --samples 1000
python make_data.py new.zarr --samples 100000 --first 1000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

CHUNK = 10_000
FEATURES = 4


def make(n_samples: int, first: int = 0) -> xr.Dataset:
    """Return variables ``x0`` … and ``label`` of the samples from `first` on of one sequence."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(first + n_samples, FEATURES))[first:]
    label = (X[:, 0] * X[:, 1] + X[:, 2] ** 2 > 0.5).astype("int8")
    columns = {f"x{number}": ("sample", X[:, number]) for number in range(FEATURES)}
    numbers = first + np.arange(n_samples)
    return xr.Dataset({**columns, "label": ("sample", label)}, coords={"sample": numbers})


def main() -> None:
    """Make what the command line says."""
    parser = argparse.ArgumentParser(description="Make samples of two classes.")
    parser.add_argument("out", metavar="OUT.zarr", type=Path)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="leave out those before")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists: remove it or choose another name")
    dataset = make(given.samples, given.first).chunk(sample=CHUNK)
    with tempfile.TemporaryDirectory(prefix=f"{given.out.name}.", dir=given.out.parent) as folder:
        unfinished = Path(folder) / given.out.name
        dataset.to_zarr(unfinished, consolidated=False)
        unfinished.rename(given.out)
    print(f"{given.out}: {given.samples:,} samples × {FEATURES} features")


if __name__ == "__main__":
    main()
