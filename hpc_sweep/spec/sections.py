"""The sections of a spec and their keys; that of the cluster has a module of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from hpc_sweep.choices import Dtype, Models, Outputs
from hpc_sweep.spec.cluster import ClusterSpec
from hpc_sweep.spec.holdout import Holdout, HoldoutWords, holdout_of
from hpc_sweep.spec.partitions import PartitionBy
from hpc_sweep.spec.search import APART, HOW_MANY, GridSpec, Search
from hpc_sweep.spec.section import Section
from hpc_sweep.spec.words import (
    Grid,
    Line,
    Loader,
    MaybeNames,
    Name,
    Names,
    Place,
    Places,
    Space,
    Step,
    Word,
)

OWN_NAMES = frozenset(
    {"candidate", "split", "target", "iteration", "trial", "status", "partition_status"}
    | {"message", "model", "candidate_id", "candidate_json", "in_spec", "best_index", "best_score"}
    | {"best_model", "n_samples", "n_splits", "fit_time", "score_time"}
    | {"n_resources", "last_iteration", "revision"}
    | {"n_holdout", "n_test_samples", "holdout_score", "refit_message"}
    | {"coef", "intercept", "feature", "output"}
)
"""Names in the store that a data set's dimension must not have."""

NAME_OF_OURS = "is a name of ours in the store; rename it in the data, or in a data.loader"

LATER_KEYS = frozenset(
    {"group", "open_options", "loader", "loader_args", "where", "holdout", "sample_weight"}
)
"""Keys of ``data`` that came after the first stores: their absence is not in a digest."""


class DataSpec(Section):
    """Where the data is and how it is cut into partitions."""

    store: Places | None = Field(
        None,
        description="zarr, netCDF, parquet, CSV, anything xarray opens, any URL; relative to the "
        "spec; several are joined",
    )
    group: Name | None = Field(None, description="the group inside the store that has the data")
    open_options: dict[str, Any] = Field(
        default_factory=dict, description="handed to xarray.open_dataset as they are: engine, …"
    )
    loader: Loader | None = Field(
        None,
        description="in place of store: module:function that returns a Dataset, a data frame or "
        "(X, y); its module may lie beside the spec",
    )
    loader_args: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the loader, by name"
    )
    features: MaybeNames = Field(
        default_factory=list,
        description="variables that make the columns of X; coordinates (latitude, time.hour) and "
        "other samples of a variable (t2m@-24h, t2m@-1) too",
    )
    target: Names | None = Field(None, description="variable(s) to predict; absent: none")
    outputs: Outputs = Field(
        "joint",
        description="several targets: one model with several outputs, or one search per target",
    )
    partition_by: PartitionBy = Field(
        description="what training sets of their own are made of: dimensions, labels, "
        "{latitude: 4} tiles, {time: season}, {time: {bins: [...]}}; []: one of all data"
    )
    sample_dims: Names | None = Field(
        None, description="dimensions along samples; default: all others of the features"
    )
    where: Name | None = Field(
        None, description="boolean variable or 0 and 1: which samples there are; ~name: where not"
    )
    holdout: HoldoutWords | None = Field(
        None,
        description='{time: "2019-03-25"}: no search sees samples from then on | '
        "{time.year: [2017, 2019]}: these values | {mask: name}; "
        "reverse: true turns it round",
    )
    sample_weight: Name | None = Field(None, description="weighs samples in fits and scores")
    dropna: bool = Field(True, description="drop samples with a missing feature, target or weight")
    dtype: Dtype = Field("float64", description="what estimators see")

    @field_validator("features")
    @classmethod
    def _are_there(cls, features: list[str], info: ValidationInfo) -> list[str]:
        if not features and info.data.get("loader", "") is None:
            raise ValueError("is missing")
        return features

    @property
    def stores(self) -> tuple[str, ...]:
        """Paths and URLs of the stores, as they are written; none where there is a loader."""
        return (self.store,) if isinstance(self.store, str) else tuple(self.store or ())

    @property
    def places(self) -> tuple[str, ...]:
        """Paths and URLs of the data, and of the loader's module; maybe none."""
        module, _, _ = (self.loader or "").rpartition(":")
        return (*self.stores, *([module] if module.endswith(".py") else ()))

    @property
    def origin(self) -> str:
        """What messages call the data."""
        return self.loader or ", ".join(self.stores)

    @property
    def held_out(self) -> Holdout | None:
        """Which samples are held out."""
        return None if self.holdout is None else holdout_of(self.holdout)


class ModelSpec(Section):
    """One estimator or pipeline, and its parameter grid or distributions."""

    name: Name | None = Field(None, description="default: the last estimator's name, lower case")
    estimator: Step | None = Field(None, description="import path, or {path: {parameter: value}}")
    pipeline: Annotated[list[Step] | dict[str, Step], Field(min_length=1)] | None = Field(
        None, description="steps, named as make_pipeline names them, or a mapping with your names"
    )
    param_grid: Grid | list[Grid] = Field(
        default_factory=dict, description="as scikit-learn's GridSearchCV takes it"
    )
    param_distributions: Space | list[Space] = Field(
        default_factory=dict,
        description="for strategies that draw: lists, or {scipy.stats.loguniform: [1e-3, 1e3]}",
    )


class OutputSpec(Section):
    """Where results go."""

    store: Place = Field(description="zarr group to make; the run folder is STORE.run beside it")
    group: Line | None = Field(
        None, description="of the operating system: its members may go on with the sweep"
    )
    models: Models = Field(
        "on_demand",
        description="on_demand: hpc_sweep.load_model fits the best one again | none | "
        "skops, joblib: the fitted best ones are stored",
    )
    trust: list[Word] = Field(
        default_factory=list,
        description="types besides scikit-learn's own that models stored by skops may have; who "
        "runs this spec may load them",
    )
    max_files: Annotated[int, Field(ge=100)] = Field(
        5000, description="how many files the finished store may have"
    )


class SweepSpec(Section):
    """The whole validated sweep description."""

    name: Line = "sweep"
    data: DataSpec
    models: Annotated[list[ModelSpec], Field(min_length=1)]
    search: Search = Field(default_factory=GridSpec)
    cluster: ClusterSpec = Field(default_factory=ClusterSpec)
    output: OutputSpec

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metric names in order; ``("score",)`` for a single one, as scikit-learn has it."""
        scoring = self.search.scoring
        return ("score",) if scoring is None or isinstance(scoring, str) else tuple(scoring)

    @property
    def metric_labels(self) -> dict[str, str]:
        """What each metric is called in titles: its scorer's name, where that says more."""
        scoring = self.search.scoring
        if isinstance(scoring, dict):
            return {name: f"{name} ({scorer})" for name, scorer in scoring.items()}
        return {"score": scoring} if isinstance(scoring, str) else {m: m for m in self.metrics}

    @property
    def refit_metric(self) -> str:
        """The metric that chooses the best candidate."""
        return self.search.refit if isinstance(self.search.refit, str) else self.metrics[0]

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the target variables, maybe none."""
        return tuple(self.data.target or ())

    def defining(self) -> dict[str, Any]:
        """Return what decides the results: data, models, search; never places, names or limits."""
        whole = self.model_dump(mode="json")
        return {
            "data": _data(whole["data"]),
            "models": [_model(model) for model in whole["models"]],
            "search": self.search.defining(),
        }

    def conditions(self) -> dict[str, Any]:
        """Return what each candidate's results depend on, besides itself.

        Where candidates are compared within a partition, that is all of `defining`.
        """
        found = self.defining()
        if self.search.strategy not in APART:
            return found
        search = {key: v for key, v in found["search"].items() if key not in HOW_MANY}
        return {"data": found["data"], "search": search}

    def digest(self) -> str:
        """Return the SHA-256 of `defining` as hexadecimal text."""
        text = json.dumps(self.defining(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _data(data: dict[str, Any]) -> dict[str, Any]:
    """Return what defines the data; later keys only where they are given."""
    held = {k: v for k, v in data.items() if k != "store" and (v or k not in LATER_KEYS)}
    if "loader" in held:
        module, _, function = held["loader"].rpartition(":")
        held["loader"] = f"{Path(module).stem if module.endswith('.py') else module}:{function}"
    return held


def _model(model: dict[str, Any]) -> dict[str, Any]:
    """Return what defines a model; distributions only where there are any."""
    held = {k: v for k, v in model.items() if v or k != "param_distributions"}
    return {**held, "pipeline": _in_order(model["pipeline"])}


def _in_order(pipeline: Any) -> Any:
    """Return named steps as pairs: sorting keys must not hide their order."""
    return [list(step) for step in pipeline.items()] if isinstance(pipeline, dict) else pipeline
