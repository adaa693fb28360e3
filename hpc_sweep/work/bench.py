"""What a worker keeps between the tasks of one run."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hpc_sweep.candidates import Candidate
from hpc_sweep.choices import KEPT_MODELS
from hpc_sweep.errors import StoreError, listed
from hpc_sweep.estimators import is_classifier
from hpc_sweep.linear import linear_models
from hpc_sweep.partitions import Label, partition_labels
from hpc_sweep.search import Evaluator, Model, Splits, build_models, setting_of
from hpc_sweep.serialization import untrusted
from hpc_sweep.source import (
    CopiedSource,
    Reading,
    Source,
    Watch,
    find_copy,
    has_whole_copy,
    open_source,
)
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import Store
from hpc_sweep.strategies import Request, Strategy

MOST_EVALUATORS = 256
"""So many sets of candidates are kept ready."""


@dataclass(frozen=True)
class Bench:
    """What a worker keeps between tasks of one run: opened and built once.

    Attributes
    ----------
    store : Store
        The output.
    source : Source
        The input.
    models : tuple of Model
        Those of the spec, built.
    splits : tuple of Splits
        By model.
    groups : ndarray, shape (n_splits,), or None
        Those that splits are named after.
    watch : Watch
        Notices that the input changes.
    reading : Reading or None
        What brings partitions into memory in place of the source's own.
    trust : tuple of str
        Types besides scikit-learn's own that stored models may have.
    """

    store: Store
    source: Source
    models: tuple[Model, ...]
    splits: tuple[Splits, ...]
    groups: NDArray[Any] | None
    watch: Watch
    reading: Reading | None = None
    trust: tuple[str, ...] = ()
    _evaluators: dict[Hashable, Evaluator] = field(default_factory=dict)
    _unfitted: dict[tuple[int, str], Any] = field(default_factory=dict)
    _storable: set[str] = field(default_factory=set)

    @property
    def strategy(self) -> Strategy:
        """How candidates are chosen and compared."""
        return self.store.strategy

    @property
    def has_classifier(self) -> bool:
        """Whether any model is one."""
        return any(is_classifier(model.estimator) for model in self.models)

    @cached_property
    def linear(self) -> frozenset[int]:
        """Which models have coefficients."""
        return frozenset(linear_models(self.store.spec))

    @property
    def keeps(self) -> str | None:
        """How fitted models are stored; None where they are not."""
        kind = self.store.spec.output.models
        return kind if kind in KEPT_MODELS else None

    @property
    def refits(self) -> bool:
        """Whether best candidates are fitted again."""
        return bool(self.store.holds_out or self.linear or self.keeps)

    @property
    def solves(self) -> bool:
        """Whether best candidates are fitted again for their coefficients alone."""
        alone = self.keeps is None and not self.store.holds_out
        return alone and bool(self.linear) and not self.source.has_weights

    def unfitted(self, candidate: Candidate) -> Any:
        """Return an estimator of a candidate, without random states; it stays unfitted."""
        key = candidate.model, candidate.json
        if key not in self._unfitted:
            if len(self._unfitted) >= MOST_EVALUATORS:
                self._unfitted.clear()
            setting = setting_of(self.models, candidate)
            made = clone(self.models[candidate.model].estimator)
            self._unfitted[key] = made.set_params(**clone(dict(setting.params), safe=False))
        return self._unfitted[key]

    def check_trust(self, candidate: Candidate, content: bytes) -> None:
        """Raise a `StoreError` when a stored model has types that the spec does not name."""
        if self.keeps != "skops" or candidate.json in self._storable:
            return
        names = untrusted(content, self.trust)
        if names:
            raise StoreError(
                f"models of {candidate.json} have types that are not scikit-learn's own: "
                f"{listed(names)}; whoever loads them has to trust these: name them in "
                "output.trust if that is meant, or take output.models: on_demand, and run the "
                "same command again"
            )
        self._storable.add(candidate.json)

    def check_source(self) -> None:
        """Raise a `StoreError` when the data is no longer what the store was made of."""
        if self.watch.changed():
            raise StoreError(
                f"{self.source.data.origin} changed while the sweep read it: its metadata or "
                f"coordinates are no longer those that {self.store.path} was made of. What was "
                "done before is kept: put the data back and run the same command again, or name "
                "another output.store"
            )

    def labels(self, partition: NDArray[np.intp]) -> dict[str, Label]:
        """Return the labels of a partition."""
        return partition_labels(self.source.coordinates, self.store.header.dims, partition)

    def seed(self, partition: NDArray[np.intp]) -> int:
        """Return a seed made of the sweep's seed and the partition's labels, never of the unit."""
        content = [self.store.spec.search.seed, self.labels(partition)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def columns(self, groups: NDArray[Any]) -> NDArray[np.intp] | None:
        """Return where the splits of a partition with these groups stand in the store."""
        return None if self.groups is None else np.searchsorted(self.groups, groups)

    def params(self, candidate: Candidate, seed: int) -> dict[str, Any]:
        """Return the parameters of a candidate, open random states filled with a seed."""
        setting = setting_of(self.models, candidate)
        return {**setting.params, **dict.fromkeys(setting.seeded, seed)}

    def evaluator(self, request: Request) -> Evaluator:
        """Return what evaluates the candidates of a request."""
        if request.key not in self._evaluators:
            if len(self._evaluators) >= MOST_EVALUATORS:
                self._evaluators.clear()
            settings = [setting_of(self.models, candidate) for candidate in request.candidates]
            metrics = self.store.spec.metrics
            self._evaluators[request.key] = Evaluator(self.models, settings, metrics)
        return self._evaluators[request.key]


def current_bench(store: str, spec_text: str, revision: int = 0) -> Bench:
    """Open store and source as `open_bench` does, and anew if there is a copy since."""
    bench = open_bench(store, spec_text, revision)
    if isinstance(bench.source, CopiedSource) or not has_whole_copy(bench.store.run.copy):
        return bench
    open_bench.cache_clear()
    return open_bench(store, spec_text, revision)


@functools.lru_cache(maxsize=2)
def open_bench(store: str, spec_text: str, revision: int = 0) -> Bench:
    """Open store and source and build the models, once for all tasks of a run.

    Parameters
    ----------
    store : str
        Its path.
    spec_text : str
        The spec as JSON.
    revision : int
        Which the store's candidates have: a worker may outlive several.
    """
    opened = Store.open(store)
    if opened.header.revision != revision:
        raise StoreError(f"{store} has revision {opened.header.revision}, not {revision}")
    spec = SweepSpec.model_validate_json(spec_text)
    groups = opened.split_names() if spec.search.names_splits else None
    copy = find_copy(opened.run.copy)
    whole = copy if copy is not None and copy.is_whole else None
    source = open_source(spec.data, spec.search, whole)
    # modules beside a loader can be imported from now on; candidates name models by this order
    models = build_models(opened.spec)
    splits = tuple(Splits(model.splitter) for model in models)
    if source.identity() != opened.header.source or (whole and whole.identity != source.identity()):
        message = f"{spec.data.origin} is not the data that {opened.path} was made of"
        hint = "; a loader returns the same each time" if spec.data.loader else ""
        raise StoreError(message + hint)
    # modules beside a loader can be imported from now on; candidates name models by this order
    models = build_models(opened.spec)
    splits = tuple(Splits(model.splitter) for model in models)
    watch = Watch(source, spec.search)
    return Bench(opened, source, models, splits, groups, watch, trust=tuple(spec.output.trust))
