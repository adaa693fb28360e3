"""The results as a table: group, model, error of the model's best setting there.

python errors.py results.zarr
"""

from __future__ import annotations

import json
import sys

import pandas as pd
import xarray as xr


def errors(store: str) -> pd.DataFrame:
    """Return columns ``group, model, error``, one row for each model in each group."""
    results = xr.open_zarr(store)
    scores = results["mean_test_score"].load()  # (group, candidate), or (group, trial)
    model = results["model"].load().broadcast_like(scores)
    long = pd.DataFrame(
        {
            "group": results["group"].broadcast_like(scores).values.ravel(),
            "model": model.transpose(*scores.dims).values.ravel(),
            "error": -scores.values.ravel(),
        }
    )
    if "categories" in model.attrs:  # a trial's model is a number
        long["model"] = long["model"].map(dict(enumerate(json.loads(model.attrs["categories"]))))
    return long.groupby(["group", "model"], as_index=False)["error"].min()


if __name__ == "__main__":
    print(errors(sys.argv[1]).to_string(index=False))
