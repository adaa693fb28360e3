"""What partitions on blocks, which lie on all workers, do not allow."""

from __future__ import annotations

from collections.abc import Iterable

from hpc_sweep import estimators
from hpc_sweep.choices import KEPT_MODELS
from hpc_sweep.errors import Fault
from hpc_sweep.source import PairSource, Source
from hpc_sweep.strategies import Strategy


def block_faults(strategy: Strategy, source: Source) -> Iterable[Fault]:
    """Yield what cannot be done with partitions that lie on all workers."""
    search = strategy.spec.search
    if isinstance(source, PairSource):
        text = "gives (X, y), which cannot be read block by block; let it give a Dataset or a frame"
        yield Fault("data.loader", text)
    if strategy.spec.output.models in KEPT_MODELS:
        yield Fault("output.models", "models of all workers are not stored; on_demand trains them")
    if search.timeout is not None:
        yield Fault("search.timeout", "what dask-ml does on all workers cannot be ended")
    if strategy.spec.data.holdout is not None:
        yield Fault("data.holdout", "of blocks on all workers none is held out but test samples")
    for index, model in enumerate(strategy.spec.models):
        built = estimators.build_estimator(model.estimator, model.pipeline)
        if estimators.is_collective(built) != (not strategy.trains):
            text = "a sweep has estimators of dask-ml, which all workers fit together, or others"
            yield Fault(f"models.{index}", f"{text}; name two sweeps")
    if not strategy.trains:
        if search.strategy not in ("grid", "random"):
            text = f"{search.strategy} cannot fit estimators of dask-ml; grid and random can"
            yield Fault("search.strategy", text)
        if search.cv != 1:
            text = "estimators of dask-ml are scored on one train/test split of each block: cv: 1"
            yield Fault("search.cv", text)
