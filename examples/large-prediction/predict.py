"""Predict and score a data set that is a hundred times larger than what the model was fitted on.

    python predict.py results.zarr new.zarr
    python predict.py results.zarr new.zarr --scheduler-file scheduler.json

dask-ml's ``ParallelPostFit`` applies the fitted model to each block of a Dask array where that is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import dask.array
import xarray as xr
from dask_ml.wrappers import ParallelPostFit
from distributed import Client

import hpc_sweep


def columns(new: str, features: Sequence[str]) -> dask.array.Array:
    """Return X of shape (n_samples, n_features), unread, in the chunks of the store."""
    dataset = xr.open_zarr(new, consolidated=False)
    return dask.array.stack([dataset[name].data for name in features], axis=1).rechunk({1: -1})


def predict(store: str, new: str) -> tuple[dask.array.Array, float]:
    """Return the predictions of the best model, unread, and its accuracy there."""
    model = ParallelPostFit(hpc_sweep.load_model(store), scoring="accuracy")
    X = columns(new, ["x0", "x1", "x2", "x3"])
    y = xr.open_zarr(new, consolidated=False)["label"].data
    return model.predict(X), float(model.score(X, y))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the accuracy."""
    parser = argparse.ArgumentParser(description="Predict and score a large data set.")
    parser.add_argument("store", metavar="RESULTS.zarr")
    parser.add_argument("new", metavar="NEW.zarr")
    parser.add_argument("--scheduler-file", help="of a Dask cluster; default: one on this machine")
    given = parser.parse_args(arguments)
    with Client(scheduler_file=given.scheduler_file, dashboard_address=None):
        predictions, accuracy = predict(given.store, given.new)
    print(f"{len(predictions):,} predictions, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
