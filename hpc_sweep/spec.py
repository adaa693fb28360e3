"""The spec: what users write, validated; all faults at once.

The YAML is read as YAML 1.2 (``1e-3`` is a number, ``1:00:00`` is text), with duplicate
keys refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import re
import shlex
import types
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field

from hpc_sweep import machines, placeholders
from hpc_sweep.choices import (
    CLUSTER_KINDS,
    Dtype,
    JobPlace,
    Models,
    Outputs,
    OutsideJobs,
    Security,
    Strategy,
)
from hpc_sweep.errors import Fault, SpecError, listed, nearest

WORD = re.compile(r"[\w./:+@=,][\w./:+@=,-]*")
"""What may stand in a job script as it is: neither a shell nor a queue reads more into it."""

_OPTION = re.compile(r"--\w[\w-]*|-[A-Za-z]|-[lW] ?\w+")
_SCRATCH = re.compile(r"(?:[\w./:+@=,-]|\$\w+|\$\{\w+\})+", re.ASCII)

OWN_NAMES = frozenset(
    {"candidate", "split", "target", "iteration", "trial", "status", "partition_status"}
    | {"message", "model", "candidate_id", "candidate_json", "best_index", "best_score"}
    | {"best_model", "n_samples", "n_splits", "fit_time", "score_time"}
)
"""Names in the store that a data set's dimension must not have."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _unique(names: list[str]) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} named more than once")
    return names


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise ValueError("a metric's name is made of letters, digits and _ ([A-Za-z_]\\w*)")
    return name


def _walltime(value: str) -> str:
    days, dash, clock = value.rpartition("-")
    fields = [*([days] if dash else []), *clock.split(":")]
    if clock.count(":") not in (1, 2) or not all(f.isdecimal() for f in fields):
        raise ValueError("write HH:MM:SS or D-HH:MM:SS")
    return value


def _one_line(value: str) -> str:
    if len(value.splitlines()) > 1 or any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError("must be one line without control characters")
    return value


def _word(value: str) -> str:
    if not WORD.fullmatch(value):
        raise ValueError("goes into job scripts: letters, digits and ._:+@=,-/ can, no - at first")
    return value


def _known_placeholders(value: str) -> str:
    wrong = placeholders.unknown(value)
    if wrong:
        known = ", ".join(f"{{{name}}}" for name in placeholders.NAMES)
        hint = nearest(wrong[0], placeholders.NAMES)
        raise ValueError(
            f"{{{wrong[0]}}} is no placeholder; known are {known}{hint} (double other braces)"
        )
    return value


def _option(value: str) -> str:
    if not _OPTION.fullmatch(value):
        raise ValueError("write an option, such as --mem, -A or -l select")
    return value


def _directive(value: str) -> str:
    if not value.startswith("-"):
        raise ValueError("a directive begins with its option, such as --qos=long or -l select=1")
    return value


def _scratch_folder(value: str) -> str:
    if not _SCRATCH.fullmatch(value):
        raise ValueError("may have letters, digits, ._:+@=,-/ and variables such as $TMPDIR")
    return value


def _command(value: str) -> str:
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"is no command line: {error}") from None
    return value


def _rule(rules: dict[str, str]) -> dict[str, str]:
    for pattern, name in rules.items():
        try:
            re.compile(pattern).sub(name, "")
        except (re.error, IndexError) as error:
            raise ValueError(
                f"{pattern!r}: {name!r} is no regular expression with a replacement: {error}"
            ) from None
    return rules


def _place(value: str) -> str:
    if "\0" in value:
        raise ValueError("a path has no NUL character")
    if "://" not in value:
        try:
            Path(value).expanduser()
        except RuntimeError:
            raise ValueError("nobody's home is known by that name; write the path out") from None
    return value


Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
Word = Annotated[Line, AfterValidator(_word)]
Option = Annotated[Line, AfterValidator(_option)]
Filled = Annotated[Line, AfterValidator(_known_placeholders)]
Directive = Annotated[Filled, AfterValidator(_directive)]
Walltime = Annotated[Line, AfterValidator(_walltime)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Place = Annotated[Name, AfterValidator(_place)]
Names = Annotated[
    list[Name], BeforeValidator(_as_list), Field(min_length=1), AfterValidator(_unique)
]
Metric = Annotated[str, AfterValidator(_identifier)]
Metrics = Annotated[list[Metric], Field(min_length=1), AfterValidator(_unique)]
Scorers = Annotated[dict[Metric, Name], Field(min_length=1)]
Step = str | Annotated[dict[str, dict[str, Any] | None], Field(min_length=1, max_length=1)]
Grid = dict[str, list[Any]]


class Section(BaseModel):
    """A part of the spec: frozen, and unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataSpec(Section):
    """Where the data is and how it is cut into partitions."""

    store: Place = Field(description="zarr, netCDF, or anything xarray opens; relative to the spec")
    features: Names = Field(description="variables that make the columns of X")
    target: Names | None = Field(None, description="variable(s) to predict; absent: none")
    outputs: Outputs = Field(
        "joint",
        description="several targets: one model with several outputs, or one search per target",
    )
    partition_by: Names = Field(description="dimensions; each index is a training set of its own")
    sample_dims: Names | None = Field(
        None, description="dimensions along samples; default: all others of the features"
    )
    dropna: bool = Field(True, description="drop samples with a missing feature or target")
    dtype: Dtype = Field("float64", description="what estimators see")


class ModelSpec(Section):
    """One estimator or pipeline and its parameter grid."""

    name: Name | None = Field(None, description="default: the last estimator's name, lower case")
    estimator: Step | None = Field(None, description="import path, or {path: {parameter: value}}")
    pipeline: Annotated[list[Step] | dict[str, Step], Field(min_length=1)] | None = Field(
        None, description="steps, named as make_pipeline names them, or a mapping with your names"
    )
    param_grid: Grid | list[Grid] = Field(
        default_factory=dict, description="as scikit-learn's GridSearchCV takes it"
    )


class SearchSpec(Section):
    """How candidates are compared."""

    strategy: Strategy = "grid"
    cv: Annotated[int, Field(ge=2)] | dict[str, Any] = Field(
        5, description="number of folds, or {class: import.path, parameter: value}"
    )
    scoring: Name | Metrics | Scorers | None = Field(
        None, description="a scorer's name, a list, or {name: scorer}; default: the score()"
    )
    refit: bool | Metric = Field(
        True, description="with several metrics: the name of the one that chooses the best"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="every random_state that is left open is derived from it"
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

    folder: Annotated[Line, AfterValidator(_scratch_folder)] = Field(
        description="Dask's local directory there; may have variables of the job, as $TMPDIR"
    )
    size: ByteSize | None = Field(None, description="for {scratch_gb} in directives")


class MountsSpec(Section):
    """What is named for a job's paths: storage directives, or binds of a container."""

    rules: Annotated[dict[str, str], AfterValidator(_rule)] = Field(
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
    chain: bool = Field(True, description="whether submit --chain is allowed here")
    outside_jobs: OutsideJobs = Field(
        "warn", description="what run does on a queue from outside a job, such as a login node"
    )
    charge: ChargeSpec | None = Field(None, description="what the machine charges for")
    max_core_hours: Amount | None = Field(None, description="of all runs of a sweep together")
    quota_command: Annotated[Line, AfterValidator(_command)] | None = Field(
        None, description="prints your quota, for doctor"
    )
    address: Line | None = Field(None, description="external: tcp://… or tls://…")
    scheduler_file: Annotated[Line, AfterValidator(_place)] | None = Field(
        None, description="external: in place of address"
    )
    security: Security = Field(
        "tls", description="between driver and workers: tls, or none (whoever reaches it is you)"
    )
    dashboard: bool = Field(
        False, description="serve Dask's pages on the loopback of the driver's host"
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
        "on_demand", description="on_demand: hpc_sweep.load_model fits the best one again | none"
    )
    max_files: Annotated[int, Field(ge=100)] = Field(
        5000, description="how many files the finished store may have"
    )


class SweepSpec(Section):
    """The whole validated sweep description."""

    name: Line = "sweep"
    data: DataSpec
    models: Annotated[list[ModelSpec], Field(min_length=1)]
    search: SearchSpec = Field(default_factory=SearchSpec)
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
        """Return what decides the results: data, models, search; never places or names."""
        whole = self.model_dump(mode="json")
        return {
            "data": {key: value for key, value in whole["data"].items() if key != "store"},
            "models": [
                {**model, "pipeline": _in_order(model["pipeline"])} for model in whole["models"]
            ],
            "search": whole["search"],
        }

    def digest(self) -> str:
        """Return the SHA-256 of `defining` as hexadecimal text."""
        text = json.dumps(self.defining(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _in_order(pipeline: Any) -> Any:
    """Return named steps as pairs: sorting keys must not hide their order."""
    return [list(step) for step in pipeline.items()] if isinstance(pipeline, dict) else pipeline


def load_spec(
    spec: str | Path | Mapping[str, Any] | SweepSpec,
    settings: Iterable[str] = (),
    *,
    store: str | Path | None = None,
) -> SweepSpec:
    """Read and validate a spec.

    Parameters
    ----------
    spec : path, mapping or SweepSpec
        A YAML file, or what it would hold. Paths in a file are relative to it, paths in a
        mapping to the working directory; all are made absolute.
    settings : iterable of str
        Overrides such as ``search.cv=3``; the value is YAML.
    store : path, optional
        Override of ``output.store``, relative to the working directory.

    Raises
    ------
    SpecError
        With every structural fault at once.
    """
    if isinstance(spec, SweepSpec):
        # what it leaves open, a machine named in the settings may still say
        raw, folder = spec.model_dump(mode="json", exclude_unset=True), Path.cwd()
        origin = "the spec"
    elif isinstance(spec, Mapping):
        raw, folder, origin = _plain(dict(spec), "the spec"), Path.cwd(), "the spec"
    else:
        path = _expanded(spec, "", str(spec)).absolute()
        wanted = "a mapping with data, models and output"
        raw, folder, origin = _read_yaml(path, str(path), wanted), path.parent, str(spec)
        raw.setdefault("name", path.stem)
    faults: list[Fault] = []
    for setting in settings:
        try:
            _override(raw, setting)
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(faults, "--set")
    if store is not None and isinstance(raw.get("output") or {}, dict):
        raw["output"] = raw.get("output") or {}
        raw["output"]["store"] = str(_expanded(store, "output.store", origin).absolute())
    unknown_machine = _lay_machine(raw)
    return _validated(raw, folder, origin, unknown_machine)


def load_machine(name: str) -> tuple[dict[str, Any], Traversable]:
    """Read and validate a machine profile.

    Parameters
    ----------
    name : str
        As in ``cluster.machine``.

    Returns
    -------
    tuple of dict and Traversable
        What the file holds, and the file.

    Raises
    ------
    SpecError
        When there is none of that name, or with everything that is wrong with it.
    """
    file = machines.find(name)
    if file is None:
        raise SpecError([_unknown_machine(name)], "the command line")
    return _read_machine(file), file


def _unknown_machine(name: str) -> Fault:
    known, own = machines.profiles(), machines.own_folder()
    hint = nearest(name, known).removesuffix("?")
    message = f"{name!r} is no machine{hint}; looked in {own} and among those shipped"
    return Fault("cluster.machine", f"{message}: {listed(known)}")


def _read_machine(file: Traversable) -> dict[str, Any]:
    origin = f"machine profile {file}"
    raw = _read_yaml(file, origin, "a mapping with description and keys of a cluster section")
    faults = [Fault("machine", "a profile cannot name another one")] if "machine" in raw else []
    try:
        profile = MachineProfile.model_validate(raw)
    except pydantic.ValidationError as error:
        faults += _faults(error, MachineProfile)
    else:
        faults += _machine_faults(profile, "")
    if faults:
        raise SpecError(faults, origin)
    return raw


def _lay_machine(raw: dict[str, Any]) -> list[Fault]:
    """Lay the machine's profile under the spec's cluster section; return what is wrong.

    A spec that says ``kind: local`` runs anywhere, so its machine is not looked at.
    """
    section = raw.get("cluster")
    if not isinstance(section, dict) or not isinstance(section.get("machine"), str):
        return []
    name, kind = section["machine"], section.get("kind")
    if kind == "local":
        return []
    file = machines.find(name)
    if file is None:
        return [_unknown_machine(name)]
    profile = _read_machine(file)
    theirs = profile.get("kind", "local")
    if kind not in (None, theirs):
        message = f"{kind!r} is not what machine {name!r} has, {theirs!r}; leave one of them out"
        return [Fault("cluster.kind", message)]
    del profile["description"]
    raw["cluster"] = machines.laid_under(profile, section)
    return []


def parse_yaml(text: str) -> Any:
    """Parse YAML 1.2 text into plain Python values."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def yaml_text(value: Any) -> str:
    """Return plain Python values as YAML 1.2 text."""
    from ruamel.yaml import YAML

    text = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(value, text)
    return text.getvalue()


def json_like(value: Any) -> Any:
    """Return `value` with tuples, NumPy scalars and dates as JSON has them.

    Infinite numbers and NaN become text (``"inf"``), which JSON cannot hold.
    """
    if isinstance(value, Mapping):
        return {str(key): json_like(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((json_like(item) for item in value), key=repr)
    if isinstance(value, (list, tuple, range)):
        return [json_like(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, type):
        return json_like(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _plain(raw: dict[Any, Any], origin: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json_like(raw)
    except RecursionError:
        raise SpecError([Fault("", "contains itself, or is nested too deeply")], origin) from None
    return plain


def _expanded(path: str | Path, key: str, origin: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        message = f"'{path}': nobody's home is known by that name; write the path out"
        raise SpecError([Fault(key, message)], origin) from None


def _read_yaml(path: Traversable, origin: str, wanted: str) -> dict[str, Any]:
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError([Fault("", "no such file; `hpc-sweep init` writes one")], origin) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Fault("", f"cannot be read: {error}")], origin) from None
    except Exception as error:  # ruamel raises several kinds, some without a word
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise SpecError([Fault("", f"is not YAML: {text}")], origin) from None
    if not isinstance(raw, dict):
        raise SpecError([Fault("", f"must be {wanted}")], origin)
    return _plain(raw, origin)


def _override(raw: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise SpecError([Fault(setting, "write KEY=VALUE, such as search.cv=3")], "--set")
    try:
        value = json_like(parse_yaml(text))
    except Exception as error:  # ruamel raises several kinds
        raise SpecError([Fault(key, f"{text!r} is not YAML: {error}")], "--set") from None
    place: Any = raw
    for step, following in zip(keys, [*keys[1:], None], strict=True):
        if isinstance(place, list):
            if not step.isdecimal() or int(step) >= len(place):
                limit = f"0 to {len(place) - 1}"
                raise SpecError([Fault(key, f"{step!r} is not an index ({limit})")], "--set")
            index: Any = int(step)
        elif isinstance(place, dict):
            index = step
        else:
            raise SpecError([Fault(key, f"nothing can be set below {place!r}")], "--set")
        if following is None:
            place[index] = value
            return
        if isinstance(place, dict) and place.get(index) is None:
            place[index] = {}
        place = place[index]


def _validated(
    raw: dict[str, Any], folder: Path, origin: str, known: Sequence[Fault] = ()
) -> SweepSpec:
    try:
        spec = SweepSpec.model_validate(raw)
    except pydantic.ValidationError as error:
        faults = [*known, *_faults(error, SweepSpec)]
        raise SpecError(faults, origin, _valid_sections(raw, folder)) from None
    faults = [*known, *_cross_faults(spec)]
    if faults:
        raise SpecError(faults, origin, _valid_sections(raw, folder))
    data = spec.data.model_copy(update={"store": absolute(spec.data.store, folder)})
    output = spec.output.model_copy(update={"store": absolute(spec.output.store, folder)})
    cluster = spec.cluster
    if cluster.scheduler_file:
        file = absolute(cluster.scheduler_file, folder)
        cluster = cluster.model_copy(update={"scheduler_file": file})
    if cluster.tls:
        files = {name: absolute(file, folder) for name, file in cluster.tls.model_dump().items()}
        cluster = cluster.model_copy(update={"tls": TlsSpec(**files)})
    cluster = with_mounts(cluster, data.store, output.store, origin)
    return spec.model_copy(update={"data": data, "output": output, "cluster": cluster})


def with_mounts(cluster: ClusterSpec, data: str, output: str, origin: str) -> ClusterSpec:
    """Return a cluster section in which ``{mounts}`` is what the paths of a sweep make of it.

    Where they make nothing of it, the lines and words that have it are left out.

    Parameters
    ----------
    cluster : ClusterSpec
        The section.
    data, output : str
        Absolute paths of data and store, or URLs.
    origin : str
        What messages call the spec.

    Raises
    ------
    SpecError
        When a path cannot be named.
    """
    driver, fields = cluster.driver, ("resources", "directives", "launcher")
    texts = [*(text for name in fields for text in getattr(cluster, name) or ())]
    texts += [*driver.directives, *(driver.resources or ())]
    if not placeholders.uses(texts, placeholders.MOUNTS):
        return cluster
    rules, join = cluster.mounts.rules, cluster.mounts.join
    names = machines.mount_names(machines.sweep_folders(data, output), rules)
    odd = [name for name in names if not WORD.fullmatch(name) or join in name]
    if odd:
        message = f"{odd[0]!r} cannot be named in {{mounts}}: letters, digits and ._/@=- can"
        raise SpecError([Fault("cluster.mounts", message)], origin)
    mounts = join.join(names)

    def put(section: Any, fields: Iterable[str]) -> dict[str, Any]:
        lists = {name: getattr(section, name) or [] for name in fields}
        return {
            name: [
                placeholders.with_mounts(text, mounts)
                for text in lines
                if mounts or not placeholders.uses([text], placeholders.MOUNTS)
            ]
            for name, lines in lists.items()
            if placeholders.uses(lines, placeholders.MOUNTS)
        }

    driver = driver.model_copy(update=put(driver, ("resources", "directives")))
    return cluster.model_copy(update={**put(cluster, fields), "driver": driver})


def _valid_sections(raw: dict[str, Any], folder: Path) -> dict[str, Section]:
    """Return the sections of a faulty spec that are valid in themselves, by dotted path."""
    models = raw.get("models")
    kinds: list[tuple[str, type[Section], Any]] = [
        ("data", DataSpec, raw.get("data")),
        ("search", SearchSpec, raw.get("search", {})),
        *(
            (f"models.{index}", ModelSpec, model)
            for index, model in enumerate(models if isinstance(models, list) else [])
        ),
    ]
    sections: dict[str, Section] = {}
    for path, kind, value in kinds:
        with contextlib.suppress(pydantic.ValidationError):
            sections[path] = kind.model_validate(value)
    data = sections.get("data")
    if isinstance(data, DataSpec):
        sections["data"] = data.model_copy(update={"store": absolute(data.store, folder)})
    return {
        path: section
        for path, section in sections.items()
        if not isinstance(section, ModelSpec) or not list(_model_faults([section]))
    }


def absolute(path: str, folder: Path) -> str:
    """Return `path` seen from `folder`; URLs stay as they are."""
    if "://" in path or "::" in path:
        return path
    return str(Path(folder, Path(path).expanduser()).absolute())


def _cross_faults(spec: SweepSpec) -> Iterable[Fault]:
    """Yield faults that no single key shows."""
    data, cluster, search = spec.data, spec.cluster, spec.search
    for name in sorted(set(data.features) & set(spec.targets)):
        yield Fault("data.features", f"'{name}' is also the target; take it out of one of them")
    if data.outputs == "separate" and not spec.targets:
        yield Fault("data.outputs", "'separate' needs data.target")
    for place in ("partition_by", "sample_dims"):
        for name in getattr(data, place) or ():
            if name in OWN_NAMES:
                yield Fault(f"data.{place}", f"'{name}' is a name of ours in the store; rename it")
    if isinstance(search.cv, dict) and not isinstance(search.cv.get("class"), str):
        yield Fault("search.cv", "a mapping needs class: the splitter's import path")
    if isinstance(search.refit, str) and search.refit not in spec.metrics:
        known = ", ".join(spec.metrics)
        yield Fault("search.refit", f"'{search.refit}' is not among the metrics ({known})")
    if len(spec.metrics) > 1 and not isinstance(search.refit, str):
        known = ", ".join(spec.metrics)
        yield Fault("search.refit", f"name the metric that chooses the best: one of {known}")
    yield from _model_faults(spec.models)
    yield from _cluster_faults(cluster)


def _model_faults(models: Sequence[ModelSpec]) -> Iterable[Fault]:
    for index, model in enumerate(models):
        if (model.estimator is None) == (model.pipeline is None):
            yield Fault(f"models.{index}", "give either estimator or pipeline")
        grids = model.param_grid if isinstance(model.param_grid, list) else [model.param_grid]
        if isinstance(model.param_grid, list) and not model.param_grid:
            yield Fault(f"models.{index}.param_grid", "is empty; leave it out for the defaults")
        for grid in grids:
            for key, values in grid.items():
                if not values:
                    path = f"models.{index}.param_grid.{key}"
                    yield Fault(path, "is an empty list; give at least one value")


def _machine_faults(cluster: ClusterSpec, root: str) -> Iterable[Fault]:
    """Yield faults that a cluster section and a machine profile may have alike."""
    if cluster.kind not in CLUSTER_KINDS and ":" not in cluster.kind:
        allowed, hint = ", ".join(CLUSTER_KINDS), nearest(cluster.kind, CLUSTER_KINDS)
        message = f"'{cluster.kind}' is none of {allowed}, or package.module:Class{hint}"
        yield Fault(f"{root}kind", message)
    charge = cluster.charge
    if charge and (charge.per_core_hour is None) == (charge.per_node_hour is None):
        yield Fault(f"{root}charge", "give either per_core_hour or per_node_hour")
    if cluster.workers is not None and cluster.nodes is not None:
        yield Fault(f"{root}nodes", "give workers, or nodes with workers_per_node, not both")
    if cluster.memory is not None and cluster.node_memory is not None:
        yield Fault(f"{root}node_memory", "give memory or node_memory, not both")


def _cluster_faults(cluster: ClusterSpec) -> Iterable[Fault]:
    yield from _machine_faults(cluster, "cluster.")
    if cluster.tls is not None and cluster.kind != "external":
        message = f"is for kind external; a {cluster.kind} cluster makes its own certificates"
        yield Fault("cluster.tls", message)
    if cluster.tls is not None and cluster.security == "none":
        yield Fault("cluster.security", "is none, but cluster.tls has certificates; drop one")
    if cluster.kind == "external" and bool(cluster.address) == bool(cluster.scheduler_file):
        yield Fault("cluster.address", "external needs one of address and scheduler_file")


def _faults(error: pydantic.ValidationError, root: type[Section]) -> list[Fault]:
    """Translate pydantic's errors.

    The members of a union complain each: the deepest complaint is about what was meant,
    and those about one place are put together.
    """
    found: dict[tuple[int | str, ...], list[Any]] = {}
    for item in error.errors():
        found.setdefault(_spec_keys(item["loc"], root), []).append(item)
    return [
        Fault(".".join(map(str, keys)), _fault_text(items, keys, root))
        for keys, items in found.items()
        if not any(other[: len(keys)] == keys != other for other in found)
    ]


def _spec_keys(location: tuple[int | str, ...], root: type[Section]) -> tuple[int | str, ...]:
    """Drop what pydantic puts into a location: after a union, the name of the member."""
    keys: list[int | str] = []
    annotation: Any = root
    in_member = False
    for key in location:
        if len(_members(annotation)) > 1 and not in_member:
            in_member = True
        elif key != "[key]":
            keys.append(key)
            annotation = _below(annotation, key)
            in_member = False
    return tuple(keys)


def _members(annotation: Any) -> list[Any]:
    """Return the alternatives of an annotation but None, unwrapped from Annotated and unions."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not types.NoneType]
        return [member for part in parts for member in _members(part)]
    return [annotation]


def _below(annotation: Any, key: int | str) -> Any:
    """Return the annotation at `key` of `annotation`, or None."""
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            if key in member.model_fields:
                return member.model_fields[str(key)].annotation
        elif get_origin(member) is list and isinstance(key, int):
            return get_args(member)[0]
        elif get_origin(member) is dict and isinstance(key, str):
            return get_args(member)[1]
    return None


def _fault_text(items: Sequence[Any], keys: tuple[int | str, ...], root: type[Section]) -> str:
    fitting = [item for item in items if not item["type"].endswith(("_type", "_parsing"))]
    item = (fitting or items)[0]
    value, kind = item["input"], item["type"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        annotation: Any = root
        for key in keys[:-1]:
            annotation = _below(annotation, key)
        fields = [f for member in _members(annotation) for f in getattr(member, "model_fields", ())]
        return f"unknown key; known here: {', '.join(fields)}{nearest(str(keys[-1]), fields)}"
    hint = ""
    if kind == "literal_error" and isinstance(value, str):
        hint = nearest(value, item["ctx"]["expected"].replace("'", "").split(" or "))
    message = ", or ".join(_message(item) for item in fitting or items)
    shown = repr(value)
    return f"{shown if len(shown) < 60 else shown[:57] + '...'}: {message}{hint}"


def _message(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
