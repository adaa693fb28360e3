"""The facts that a plan is made of."""

from __future__ import annotations

import math

import numpy as np

from hpc_sweep.choices import KEPT_MODELS
from hpc_sweep.linear import linear_models
from hpc_sweep.plan import UNITS_PER_WORKER, Workload
from hpc_sweep.search import Evaluator, build_models, setting_of
from hpc_sweep.source import PairSource, Source, index_bytes, largest_window, windows
from hpc_sweep.store import Store, result_arrays
from hpc_sweep.strategies import Strategy

FIXED_FILES = 12
"""Files of a store besides one per array and chunk: metadata and small arrays."""

WORKERS_EACH = 2
"""So many workers for each partition are worth searches that ask from the driver."""


def _borders(strategy: Strategy) -> tuple[int, ...]:
    """Return at which candidates a slice may end."""
    models = build_models(strategy.spec)
    rows = np.flatnonzero(strategy.in_spec)
    settings = [setting_of(models, strategy.candidates[row]) for row in rows]
    found = Evaluator(models, settings, strategy.spec.metrics).borders()
    return tuple(int(rows[border - 1]) + 1 for border in found)


def workload_of(
    strategy: Strategy, source: Source, n_splits: int, store: Store | None, workers: int
) -> Workload:
    """Return what is cut.

    Parameters
    ----------
    strategy : Strategy
        With its candidates.
    source : Source
        The data, as it is read.
    n_splits : int
        Length of ``split``.
    store : Store or None
        What exists already.
    workers : int
        Worker processes.
    """
    spec, arrays = strategy.spec, result_arrays(strategy)
    held = source.n_samples
    if strategy.on_blocks:  # no worker holds more at a time
        held = largest_window(windows(source, strategy.block_samples))
    share = held / source.n_samples
    shared = spec.search.engine == "shared" and not strategy.on_blocks
    sliced = shared and strategy.is_parted and source.grid.size < UNITS_PER_WORKER * workers
    # with fewer workers each, units of one partition keep them as busy
    asked = shared and not strategy.is_parted and WORKERS_EACH * source.grid.size <= workers
    along = sum(strategy.dim in array.dims for array in arrays)
    blocks = 1 if store is None else -(-strategy.n_rows // store.header.block)
    keeps = spec.output.models in KEPT_MODELS
    fixed = len(source.kept_coordinates.variables) + len(strategy.parameters) * 2 + FIXED_FILES
    return Workload(
        grid=source.grid,
        known_reads=None if strategy.on_blocks else source.reads,
        stays=strategy.on_blocks,
        may_persist=(asked or strategy.is_parted) and shared and not isinstance(source, PairSource),
        is_asked=asked,
        known_borders=_borders(strategy) if sliced else None,
        n_candidates=strategy.n_rows,
        n_columns=strategy.n_columns,
        n_results=math.prod(strategy.lengths.values()),
        n_fits_each=strategy.n_fits(n_splits),
        n_splits=n_splits,
        n_metrics=len(spec.metrics),
        n_samples=held,
        n_features=source.n_features,
        n_outputs=(1 if source.separate else len(source.targets)) + source.has_weights,
        itemsize=np.dtype(spec.data.dtype).itemsize,
        source_bytes=source.source_bytes,
        partition_bytes=math.ceil(source.partition_bytes * share),
        chunk_bytes=source.chunk_bytes,
        index_bytes=index_bytes(source),
        n_chunked_arrays=len(arrays) + (blocks - 1) * along + keeps,
        n_other_files=len(arrays) + 2 * fixed,
        refits=spec.data.holdout is not None or keeps or bool(linear_models(spec)),
    )
