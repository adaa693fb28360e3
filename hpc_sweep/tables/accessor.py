"""``ds.sweep`` of xarray: what a store says, as labelled data and tables."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from hpc_sweep.tables.best import best_frame
from hpc_sweep.tables.failures import failures_table
from hpc_sweep.tables.opened import Results
from hpc_sweep.tables.ranking import candidates_table, models_table


@xr.register_dataset_accessor("sweep")  # type: ignore[no-untyped-call]
class SweepAccessor:
    """Tables of a store that was opened with xarray, or of some of its partitions.

    ``import hpc_sweep.accessor`` makes ``ds.sweep`` known to xarray; so does
    ``hpc_sweep.open_results``.

    Parameters
    ----------
    dataset : xarray.Dataset
        What ``xarray.open_zarr`` gives of a store.

    Raises
    ------
    StoreError
        By each method, when the dataset is none of hpc_sweep's.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def best(self) -> xr.Dataset:
        """Return what there is of each partition's best candidate, with the data's labels.

        Returns
        -------
        xarray.Dataset
            ``best_index``, ``best_score``, ``best_model``, ``best_param_<name>``,
            ``holdout_<metric>``, ``n_samples`` and ``partition_status`` along the partitions.
        """
        results = Results(self._dataset)
        names = ["best_index", "best_score", "best_model"]
        names += [f"best_param_{name}" for name in results.strategy.parameters]
        names += [f"holdout_{metric}" for metric in results.metrics]
        names += ["n_samples", "partition_status"]
        return self._dataset[[name for name in names if name in self._dataset]]

    def table(self, *, metric: str | None = None, top: int | None = None) -> pd.DataFrame:
        """Return a row for each partition with its best model, best score first.

        Parameters
        ----------
        metric : str, optional
            Which score is shown and ordered by; ``search.refit``'s without it.
        top : int, optional
            No more rows than that.
        """
        return best_frame(Results(self._dataset), metric=metric, top=top)

    def worst(self, *, metric: str | None = None, top: int | None = 20) -> pd.DataFrame:
        """Return the partitions whose best models have the lowest scores, lowest first.

        Parameters
        ----------
        metric, top
            As for `table`.
        """
        return best_frame(Results(self._dataset), metric=metric, top=top, worst=True)

    def models(self, *, metric: str | None = None, by: str | None = None) -> pd.DataFrame:
        """Return how models compare over all partitions; see `tables.models_table`.

        Parameters
        ----------
        metric : str, optional
            Which scores are compared; ``search.refit``'s without it.
        by : str, optional
            A partition dimension: models are compared for each of its labels.
        """
        return models_table(Results(self._dataset), metric=metric, by=by)

    def candidates(self, *, metric: str | None = None) -> pd.DataFrame:
        """Return how candidates do over all partitions; see `tables.candidates_table`."""
        return candidates_table(Results(self._dataset), metric=metric)

    def failures(self) -> pd.DataFrame:
        """Return what failed, by reason; see `tables.failures_table`."""
        return failures_table(Results(self._dataset))
