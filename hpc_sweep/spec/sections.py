"""The sections of a spec and their keys."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import ByteSize, Field, ValidationInfo, field_validator

from hpc_sweep.choices import (
    Dtype,
    JobPlace,
    Models,
    Outputs,
    OutsideJobs,
    Rechunk,
    Security,
)
from hpc_sweep.spec.holdout import Holdout, HoldoutWords, holdout_of
from hpc_sweep.spec.partitions import PartitionBy
from hpc_sweep.spec.search import APART, HOW_MANY, GridSpec, Search
from hpc_sweep.spec.section import Section
from hpc_sweep.spec.words import (
    Amount,
    Command,
    Directive,
    Filled,
    Grid,
    Line,
    Loader,
    MaybeNames,
    Name,
    Names,
    Option,
    Place,
    PlaceLine,
    Places,
    Rules,
    ScratchFolder,
    Seconds,
    Space,
    Step,
    Walltime,
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
        None, description="boolean variable: which samples there are; ~name: those where it is not"
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


class TlsSpec(Section):
    """Certificates for a cluster that somebody else started."""

    ca_file: Place
    cert: Place
    key: Place


class DriverSpec(Section):
    """The job of its own that ``hpc-sweep submit`` gives the driver; open keys as for workers."""

    memory: ByteSize = Field(ByteSize(4_000_000_000), description="of the driver's job")
    queue: Word | None = None
    account: Word | None = None
    walltime: Walltime | None = None
    resources: list[Directive] | None = Field(None, description="its own resource directives")
    directives: list[Directive] = Field(default_factory=list)


class ScratchSpec(Section):
    """Local disk of the nodes."""

    folder: ScratchFolder = Field(
        description="Dask's local directory there; may have variables of the job, as $TMPDIR"
    )
    size: ByteSize | None = Field(None, description="for {scratch_gb} in directives")


class MountsSpec(Section):
    """What is named for a job's paths: storage directives, or binds of a container."""

    rules: Rules = Field(
        default_factory=dict,
        description="regular expression at the beginning of a path: name; without: the paths",
    )
    join: Word = Field(",", description="what stands between the names in {mounts}")


class ChargeSpec(Section):
    """What the machine charges."""

    unit: Line = Field("core-hours", description="such as SU")
    per_core_hour: Amount | None = None
    per_node_hour: Amount | None = Field(None, description="where whole nodes are charged")
    memory_per_core: ByteSize | None = Field(
        None, description="a job that asks for more memory per core is charged for more cores"
    )


class ClusterSpec(Section):
    """Where the work is done. Never part of what the results are."""

    machine: Line | None = Field(
        None, description="name of a profile that lies under this section: hpc-sweep machines"
    )
    kind: Line = Field("local", description="local, slurm, pbs, external, or package.module:Class")
    workers: Annotated[int, Field(ge=1)] | None = Field(None, description="worker processes")
    nodes: Annotated[int, Field(ge=1)] | None = Field(None, description="in place of workers")
    workers_per_node: Annotated[int, Field(ge=1)] | None = Field(
        None, description="worker processes per job; one core each"
    )
    place: JobPlace = Field(
        "worker_jobs",
        description="of the workers, when submitted: jobs of their own, or one_job with the driver",
    )
    memory: ByteSize | None = Field(None, description="per worker process, such as 4GB or 4GiB")
    node_memory: ByteSize | None = Field(
        None, description="in place of memory: of a whole job or machine, shared by its workers"
    )
    queue: Word | None = None
    account: Word | None = None
    account_option: Option | None = Field(
        None, description="in place of --account (Slurm) and -A (PBS), such as -P"
    )
    walltime: Walltime | None = Field(
        None, description="of a worker job at the most; HH:MM:SS or D-HH:MM:SS"
    )
    time_min: Walltime | None = Field(
        "00:10:00",
        description="Slurm may shorten a job down to this to start it earlier; null: never",
    )
    interface: Word | None = Field(None, description="network interface of the nodes")
    scheduler_interface: Word | None = Field(
        None, description="that of the driver's host, where it has another name"
    )
    resources: list[Directive] | None = Field(
        None, description="in place of the directives for cores and memory: -l ncpus={cores}"
    )
    directives: list[Directive] = Field(
        default_factory=list,
        description="options of the queue to add, or to put in place of the same option",
    )
    skip: list[Option] = Field(
        default_factory=list, description="options of the queue to drop, such as --mem"
    )
    prologue: list[Line] = Field(
        default_factory=list, description="shell lines before a worker starts (module load …)"
    )
    launcher: list[Filled] = Field(
        default_factory=list, description="words before python: [apptainer, exec, image.sif]"
    )
    mounts: MountsSpec = Field(default_factory=MountsSpec, description="what {mounts} stands for")
    scratch: ScratchSpec | None = Field(None, description="local disk of the nodes")
    driver: DriverSpec = Field(
        default_factory=DriverSpec, description="the driver's own job (hpc-sweep submit)"
    )
    start_timeout: Seconds = Field(
        600.0, description="seconds to be without any worker before a run gives up"
    )
    idle_limit: Seconds = Field(
        3600.0, description="the same for a link of submit --chain, which nobody waits for"
    )
    disk_patience: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        600.0, description="seconds to wait for a disk that is full, read-only or away"
    )
    rechunk: Rechunk = Field(
        "auto",
        description="what is done first with data that is chunked the wrong way, or whose labels "
        "are scattered: copy (into the run folder) | p2p (in the workers' memory) | never | auto",
    )
    chain: bool = Field(True, description="whether submit --chain is allowed here")
    outside_jobs: OutsideJobs = Field(
        "warn", description="what run does on a queue from outside a job, such as a login node"
    )
    charge: ChargeSpec | None = Field(None, description="what the machine charges for")
    max_core_hours: Amount | None = Field(None, description="of all runs of a sweep together")
    quota_command: Command | None = Field(None, description="prints your quota, for doctor")
    address: Line | None = Field(None, description="external: tcp://… or tls://…")
    scheduler_file: PlaceLine | None = Field(None, description="external: in place of address")
    security: Security = Field(
        "tls", description="between driver and workers: tls, or none (whoever reaches it is you)"
    )
    dashboard: bool = Field(
        False, description="serve Dask's pages on the loopback of the driver's host"
    )
    performance_report: bool = Field(
        False, description="keep Dask's own report of each run, a page, in the run folder"
    )
    tls: TlsSpec | None = Field(None, description="external: certificates for tls://")
    options: dict[str, Any] = Field(
        default_factory=dict, description="handed to the cluster class as they are"
    )


class MachineProfile(ClusterSpec):
    """A machine's part of ``cluster`` sections, in a file of its own."""

    description: Line = Field(description="what machine this is, in a line")


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
        description="types besides scikit-learn's own that models stored by skops may have",
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
