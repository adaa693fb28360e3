"""The spec: every fault at once, with its place; what YAML says is what is meant."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_sweep.errors import SpecError
from hpc_sweep.spec import OutputSpec, SweepSpec, absolute, json_like, load_spec

Raw = dict[str, Any]

FULL = """\
name: full
data:
  store: in.zarr
  features: [a, b]
  target: [c, d]
  outputs: joint
  partition_by: [y, x]
  sample_dims: [time]
  dropna: true
  dtype: float64
models:
  - estimator: sklearn.linear_model.Ridge
    param_grid: {alpha: [1e-3, 1.0, 1e3]}
  - name: scaled-svr
    pipeline: [sklearn.preprocessing.StandardScaler, {sklearn.svm.SVR: {kernel: rbf}}]
    param_grid: [{svr__C: [1, 10]}, {svr__C: [100], svr__gamma: [0.1]}]
  - pipeline: {scale: sklearn.preprocessing.StandardScaler, fit: sklearn.svm.SVR}
search:
  cv: {class: sklearn.model_selection.TimeSeriesSplit, n_splits: 5}
  scoring: {fit: r2, error: neg_mean_squared_error}
  refit: fit
  seed: 3
cluster:
  kind: slurm
  nodes: 2
  workers_per_node: 4
  memory: 4GB
  walltime: 1:00:00
  directives: [--constraint=x]
output:
  store: out.zarr
  max_files: 400
"""


def minimal() -> Raw:
    return {
        "data": {"store": "in.zarr", "features": ["a"], "target": "c", "partition_by": ["x"]},
        "models": [
            {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1.0]}},
            {"pipeline": ["sklearn.preprocessing.StandardScaler", "sklearn.svm.SVR"]},
        ],
        "output": {"store": "out.zarr"},
    }


def changed(path: str, value: object, raw: Raw | None = None) -> Raw:
    """Return the minimal spec with one dotted key set."""
    raw = minimal() if raw is None else raw
    place: Any = raw
    *parents, last = path.split(".")
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    place[int(last) if isinstance(place, list) else last] = value
    return raw


def faults_of(call: Callable[[], object]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        call()
    assert str(caught.value).count("\n") >= len(caught.value.faults)
    return {fault.path: fault.message for fault in caught.value.faults}


def faults(raw: Any, *overrides: str) -> dict[str, str]:
    return faults_of(lambda: load_spec(raw, overrides))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "my sweep.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# faults: all of them, where they are


def test_all_faults_are_reported_at_once() -> None:
    raw = minimal()
    raw["data"] |= {"features": [], "dtype": "float16", "partition-by": ["y"]}
    raw["models"][0]["param_grid"] = {"alpha": 1.0}
    raw["models"][1]["pipline"] = []
    raw["search"] = {"cv": 0, "seed": -1}
    raw["cluster"] = {"workers": 0, "memory": "lots"}
    raw["outptu"] = raw.pop("output")
    assert set(faults(raw)) == {
        "data.features",
        "data.dtype",
        "data.partition-by",
        "models.0.param_grid.alpha",
        "models.1.pipline",
        "search.cv",
        "search.seed",
        "cluster.workers",
        "cluster.memory",
        "output",
        "outptu",
    }


def test_faults_across_keys_are_reported_at_once() -> None:
    raw = changed("data.features", ["a", "c"])
    changed("data.partition_by", ["candidate"], raw)
    changed("data.sample_dims", ["split"], raw)
    changed("models.0.pipeline", ["sklearn.svm.SVR"], raw)
    changed("models.1.param_grid", {"svr__C": []}, raw)
    changed("search.refit", "r2", raw)
    changed("search.cv", {"n_splits": 3}, raw)
    changed("cluster", {"kind": "slrum", "workers": 2, "nodes": 1}, raw)
    found = faults(raw)
    assert set(found) == {
        "data.features",
        "data.partition_by.0",
        "data.sample_dims",
        "models.0",
        "models.1.param_grid.svr__C",
        "search.refit",
        "search.cv",
        "cluster.kind",
        "cluster.nodes",
    }
    assert "'c' is also the target" in found["data.features"]
    assert "'candidate' is a name of ours" in found["data.partition_by.0"]
    assert "either estimator or pipeline" in found["models.0"]
    assert "class" in found["search.cv"]
    assert "did you mean 'slurm'?" in found["cluster.kind"]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("ouput", "output"),
        ("out-put", "output"),
        ("data.partition-by", "partition_by"),
        ("data.featurs", "features"),
        ("data.str", "store"),
        ("models.0.estimater", "estimator"),
        ("models.1.param-grid", "param_grid"),
        ("search.score", "scoring"),
        ("cluster.wall_time", "walltime"),
        ("cluster.workers[0]", "workers"),
        ("output.maxfiles", "max_files"),
    ],
)
def test_unknown_key_names_the_nearest_one(path: str, nearest: str) -> None:
    found = faults(changed(path, 1))
    assert set(found) == {path}
    assert "unknown key" in found[path]
    assert f"did you mean '{nearest}'?" in found[path]


def test_unknown_key_far_from_all_lists_what_is_known() -> None:
    message = faults(changed("output.zzz", 1))["output.zzz"]
    assert f"known here: {', '.join(OutputSpec.model_fields)}" in message
    assert "did you mean" not in message


@pytest.mark.parametrize("key", ["data", "models", "output"])
def test_missing_section(key: str) -> None:
    raw = minimal()
    del raw[key]
    assert faults(raw) == {key: "is missing"}


@pytest.mark.parametrize("key", ["store", "features", "partition_by"])
def test_missing_key(key: str) -> None:
    raw = minimal()
    del raw["data"][key]
    assert faults(raw) == {f"data.{key}": "is missing"}


@pytest.mark.parametrize(
    ("path", "value", "place", "words"),
    [
        ("data.target", 5, "data.target", "5: input should be a valid list"),
        ("data.target", ["c", 5], "data.target.1", "5: input should be a valid string"),
        ("data.target", [], "data.target", "at least 1"),
        ("data.target", ["c", "c"], "data.target", "c named more than once"),
        ("data.features", "", "data.features.0", "at least 1 character"),
        ("data.features", {"a": 1}, "data.features", "valid list"),
        ("data.outputs", "seperate", "data.outputs", "did you mean 'separate'?"),
        ("data.dtype", "float16", "data.dtype", "'float64' or 'float32'"),
        ("data.store", "~nobody-of-this-name/a.zarr", "data.store", "home"),
        ("output.store", "a\0b", "output.store", "NUL"),
        ("models", [], "models", "at least 1"),
        ("models", [None], "models.0", "valid dictionary"),
        ("models", {}, "models", "valid list"),
        ("models.0.estimator", 5, "models.0.estimator", "valid string, or input should be a valid"),
        ("models.0.estimator", {}, "models.0.estimator", "at least 1 item"),
        ("models.0.estimator", {"a.B": {}, "a.C": {}}, "models.0.estimator", "at most 1 item"),
        ("models.0.estimator", {"a.B": 5}, "models.0.estimator.a.B", "valid dictionary"),
        ("models.1.pipeline", "sklearn.svm.SVR", "models.1.pipeline", "valid list, or input"),
        ("models.1.pipeline", [], "models.1.pipeline", "at least 1 item"),
        ("models.1.pipeline", ["a.B", 5], "models.1.pipeline.1", "5: input should be a valid str"),
        ("models.1.pipeline", {"my-step": 5}, "models.1.pipeline.my-step", "5: input should be"),
        ("models.1.pipeline", {"str": 5}, "models.1.pipeline.str", "5: input should be"),
        ("models.0.param_grid", {"alpha": 1.0}, "models.0.param_grid.alpha", "1.0: input should"),
        ("models.0.param_grid", {"int": "x"}, "models.0.param_grid.int", "'x': input should be"),
        ("models.0.param_grid", [{"alpha": 1}], "models.0.param_grid.0.alpha", "valid list"),
        ("models.0.param_grid", ["alpha"], "models.0.param_grid.0", "valid dictionary"),
        ("models.0.param_grid", "alpha", "models.0.param_grid", "valid dictionary, or input"),
        ("models.0.param_grid", [], "models.0.param_grid", "is empty"),
        ("models.0.param_grid", {"alpha": []}, "models.0.param_grid.alpha", "at least one value"),
        ("models.0.param_grid", [{"alpha": [1]}, {"tol": []}], "models.0.param_grid.tol", "empty"),
        ("search.strategy", "grids", "search.strategy", "did you mean 'grid'?"),
        ("search.cv", "five", "search.cv", "'five': input should be a valid integer"),
        ("search.cv", 0, "search.cv", "0: input should be greater than or equal to 1"),
        ("search.cv", True, "search.cv", "a number of folds is no truth value"),
        ("search.cv", 2.5, "search.cv", "2.5: input should be a valid integer"),
        ("search.cv", [5], "search.cv", "valid integer, or input should be a valid dictionary"),
        ("search.cv", None, "search.cv", "valid integer"),
        ("search.cv", {"class": 5}, "search.cv", "class"),
        ("search.scoring", 5, "search.scoring", "valid string, or input should be a valid list"),
        ("search.scoring", [], "search.scoring", "at least 1 item"),
        ("search.scoring", {}, "search.scoring", "at least 1 item"),
        ("search.scoring", "", "search.scoring", "at least 1 character"),
        ("search.scoring", ["r2", 1], "search.scoring.1", "1: input should be a valid string"),
        ("search.scoring", ["r2", "r2"], "search.scoring", "r2 named more than once"),
        ("search.scoring", ["r2", "a:b"], "search.scoring.1", "letters, digits and _"),
        ("search.scoring", {"a b": "r2"}, "search.scoring.a b", "letters, digits and _"),
        ("search.scoring", {"a": None}, "search.scoring.a", "valid string"),
        ("search.scoring", ["r2", "max_error"], "search.refit", "one of r2, max_error"),
        ("search.refit", "r2", "search.refit", "'r2' is not among the metrics (score)"),
        ("search.refit", 3, "search.refit", "valid boolean"),
        ("search.seed", math.nan, "search.seed", "valid integer"),
        ("search.seed", 2**63, "search.seed", "less than"),
        ("cluster.memory", "4GX", "cluster.memory", "GX"),
        ("cluster.memory", -4, "cluster.memory", "-4"),
        ("cluster.walltime", 3600, "cluster.walltime", "valid string"),
        ("cluster.walltime", "-1:00:00", "cluster.walltime", "HH:MM:SS"),
        ("cluster.walltime", "1:2:3:4", "cluster.walltime", "HH:MM:SS"),
        ("cluster.walltime", "²:00", "cluster.walltime", "HH:MM:SS"),
        ("cluster.walltime", "1h", "cluster.walltime", "HH:MM:SS"),
        ("cluster.queue", "a\n#SBATCH --uid=0", "cluster.queue", "one line"),
        ("cluster.prologue", ["module load x\nrm y"], "cluster.prologue.0", "one line"),
        ("cluster.start_timeout", math.inf, "cluster.start_timeout", "finite"),
        ("cluster.kind", "external", "cluster.address", "address and scheduler_file"),
        ("cluster.tls", {"ca-file": "x"}, "cluster.tls.ca-file", "did you mean 'ca_file'?"),
        ("output.models", "on-demand", "output.models", "did you mean 'on_demand'?"),
        ("output.max_files", 10, "output.max_files", "greater than or equal to 100"),
        ("name", "", "name", "at least 1 character"),
        ("name", "a\nb", "name", "one line"),
    ],
)
def test_wrong_value(path: str, value: object, place: str, words: str) -> None:
    found = faults(changed(path, value))
    assert place in found, found
    assert words in found[place]
    assert all(key == place or not place.startswith(key) for key in found), "a union's noise"


def test_long_values_are_cut_in_messages() -> None:
    message = faults(changed("data.features", {"a" * 500: 1}))["data.features"]
    assert len(message) < 150


# files


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nope\.yaml has 1 fault:\n.*no such file.*init"):
        load_spec(tmp_path / "nope.yaml")


def test_file_in_the_home_of_nobody() -> None:
    assert "home" in faults("~nobody-of-this-name/sweep.yaml")[""]


def test_store_in_the_home_of_nobody() -> None:
    found = faults_of(lambda: load_spec(minimal(), store="~nobody-of-this-name/x.zarr"))
    assert "home" in found["output.store"]


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "cannot be read" in faults(tmp_path)[""]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"\x89PNG\r\n\x1a\n\x00", b"a: \x01"])
def test_binary_file(write: Callable[..., Path], content: bytes) -> None:
    message = faults(write(content))[""]
    assert "cannot be read" in message or "is not YAML" in message


@pytest.mark.parametrize(
    "content",
    [
        "a: b: c",
        "data: [1, 2",
        "a: 1\n---\na: 2",
        "a: 2019-02-31",
        "a: !!int ''",
        "a: !!bool maybe",
        "a: !!float ''",
        "a: " + "1" * 5000,
        "[" * 3000,
        "!!python/object/apply:os.system [true]",
        "? {a: 1}\n: b",
        "<<: 1",
        "%YAML 3.0\n---\na: 1",
    ],
)
def test_not_yaml(write: Callable[..., Path], content: str) -> None:
    assert "is not YAML" in faults(write(content))[""]


@pytest.mark.parametrize("content", ["", "- a\n- b", "just text", "5", "null"])
def test_yaml_but_no_mapping(write: Callable[..., Path], content: str) -> None:
    assert "must be a mapping" in faults(write(content))[""]


def test_yaml_that_contains_itself(write: Callable[..., Path]) -> None:
    assert "contains itself" in faults(write("data: &a [*a]"))[""]


def test_mapping_that_contains_itself() -> None:
    raw = minimal()
    raw["models"][0]["param_grid"] = raw
    assert "contains itself" in faults(raw)[""]


@pytest.mark.parametrize("line", ["data: {store: b}", "models: []"])
def test_duplicate_key(write: Callable[..., Path], line: str) -> None:
    message = faults(write(FULL + line + "\n"))[""]
    assert "duplicate key" in message
    assert line.partition(":")[0] in message


def test_duplicate_parameter(write: Callable[..., Path]) -> None:
    text = FULL.replace("kernel: rbf", "kernel: rbf, kernel: poly")
    assert 'duplicate key "kernel"' in faults(write(text))[""]


# YAML 1.2


def test_numbers_without_a_point_are_numbers(write: Callable[..., Path]) -> None:
    grid = load_spec(write(FULL)).models[0].param_grid
    assert grid == {"alpha": [0.001, 1.0, 1000.0]}


def test_a_time_is_no_number_to_the_base_of_sixty(write: Callable[..., Path]) -> None:
    assert load_spec(write(FULL)).cluster.walltime == "1:00:00"


def test_norway_is_text(write: Callable[..., Path]) -> None:
    spec = load_spec(write(FULL.replace("[a, b]", "[no, NO, on, y]")))
    assert spec.data.features == ["no", "NO", "on", "y"]


def test_a_leading_zero_is_not_octal(write: Callable[..., Path]) -> None:
    assert load_spec(write(FULL.replace("seed: 3", "seed: 010"))).search.seed == 10


def test_dates_become_text(write: Callable[..., Path]) -> None:
    text = FULL.replace("[100]", "[2019-03-25]")
    assert load_spec(write(text)).models[1].param_grid[1]["svr__C"] == ["2019-03-25"]


# overrides


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("search.cv=3", "search.cv", 3),
        ("search.cv={class: a.B, n_splits: 4}", "search.cv", {"class": "a.B", "n_splits": 4}),
        ("models.0.param_grid.alpha=[1e-2, 2]", "models.0.param_grid", {"alpha": [0.01, 2]}),
        ("models.1.pipeline.1=sklearn.svm.NuSVR", "models.1.pipeline.1", "sklearn.svm.NuSVR"),
        ("data.features.0=b", "data.features", ["b"]),
        ("data.target=null", "data.target", None),
        ("cluster.walltime=2:00:00", "cluster.walltime", "2:00:00"),
        ("cluster.options.a.b=1", "cluster.options", {"a": {"b": 1}}),
        ("name=x=y", "name", "x=y"),
        (" search.seed =7", "search.seed", 7),
    ],
)
def test_override(setting: str, path: str, value: object) -> None:
    place: Any = load_spec(minimal(), [setting])
    for key in path.split("."):
        place = place[int(key)] if isinstance(place, list) else getattr(place, key)
    assert place == value


def test_later_override_wins() -> None:
    assert load_spec(minimal(), ["search.cv=3", "search.cv=4"]).search.cv == 4


def test_override_leaves_the_callers_mapping_alone() -> None:
    raw = minimal()
    load_spec(raw, ["models.0.param_grid.alpha=[5]", "search.cv=3"], store="x.zarr")
    assert raw == minimal()


@pytest.mark.parametrize(
    ("setting", "path", "words"),
    [
        ("search.cv", "search.cv", "KEY=VALUE"),
        ("=3", "=3", "KEY=VALUE"),
        ("search..cv=3", "search..cv=3", "KEY=VALUE"),
        ("search.cv=[1", "search.cv", "is not YAML"),
        ("search.cv=!!int ''", "search.cv", "is not YAML"),
        ("models.2.name=x", "models.2.name", "'2' is not an index (0 to 1)"),
        ("models.-1.name=x", "models.-1.name", "'-1' is not an index (0 to 1)"),
        ("models.².name=x", "models.².name", "'²' is not an index"),
        ("models.last.name=x", "models.last.name", "'last' is not an index"),
        ("data.store.x=1", "data.store.x", "nothing can be set below 'in.zarr'"),
    ],
)
def test_bad_override(setting: str, path: str, words: str) -> None:
    found = faults(minimal(), setting)
    assert words in found[path]


def test_override_with_an_unknown_key_is_a_fault_of_the_spec() -> None:
    assert "did you mean 'scoring'?" in faults(minimal(), "search.scorin=r2")["search.scorin"]


def test_override_can_mend_a_faulty_spec() -> None:
    assert load_spec(changed("search.cv", "five"), ["search.cv=3"]).search.cv == 3


# paths


def test_paths_are_relative_to_the_spec_file(write: Callable[..., Path], tmp_path: Path) -> None:
    text = FULL.replace("kind: slurm", "kind: external\n  scheduler_file: s.json").replace(
        "nodes: 2", "tls: {ca_file: ca.pem, cert: c.pem, key: /k.pem}"
    )
    spec = load_spec(write(text))
    assert spec.data.store == str(tmp_path / "in.zarr")
    assert spec.output.store == str(tmp_path / "out.zarr")
    assert spec.cluster.scheduler_file == str(tmp_path / "s.json")
    assert spec.cluster.tls is not None
    assert spec.cluster.tls.model_dump() == {
        "ca_file": str(tmp_path / "ca.pem"),
        "cert": str(tmp_path / "c.pem"),
        "key": "/k.pem",
    }


def test_a_relative_spec_gives_absolute_paths(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    spec = load_spec(Path("..") / write(FULL).name)
    assert Path(spec.data.store).resolve() == tmp_path / "in.zarr"
    assert Path(spec.data.store).is_absolute()


def test_store_argument_is_relative_to_the_working_directory(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert load_spec(write(FULL), store="r.zarr").output.store == str(folder / "r.zarr")
    raw = minimal()
    del raw["output"]
    assert load_spec(raw, store="r.zarr").output.store == str(folder / "r.zarr")


def test_paths_of_a_mapping_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_spec(minimal()).data.store == str(tmp_path / "in.zarr")


@pytest.mark.parametrize("url", ["s3://bucket/a.zarr", "memory://a", "simplecache::s3://b/c"])
def test_urls_stay(url: str, tmp_path: Path) -> None:
    assert absolute(url, tmp_path) == url
    assert load_spec(changed("data.store", url)).data.store == url


def test_name_comes_from_the_file(write: Callable[..., Path]) -> None:
    text = FULL.replace("name: full\n", "", 1)
    assert load_spec(write(text)).name == "my sweep"


# from Python


def test_python_values_become_plain() -> None:
    raw = minimal()
    raw["models"][0]["param_grid"] = {
        "alpha": np.logspace(0, 2, 3),
        "tol": (np.float32(0.5), np.int8(2), np.bool_(True), None),
        "positive": {True},
        "solver": [datetime.date(2020, 1, 2), np.datetime64("2020-01-02"), Path("a")],
        "max_iter": range(1, 3),
        "x": [math.inf, -math.inf, math.nan, np.float64("nan")],
        "y": [{"a": (1, 2)}, np.ndarray],
    }
    raw["data"]["features"] = ("a", "b")
    spec = load_spec(raw)
    assert spec.data.features == ["a", "b"]
    grid = spec.models[0].param_grid
    assert isinstance(grid, dict)
    assert grid["alpha"] == [1.0, 10.0, 100.0]
    assert grid["tol"] == [0.5, 2, True, None]
    assert [type(value) for value in grid["tol"]] == [float, int, bool, type(None)]
    assert grid["positive"] == [True]
    assert grid["solver"] == ["2020-01-02", "2020-01-02", "a"]
    assert grid["max_iter"] == [1, 2]
    assert grid["x"] == ["inf", "-inf", "nan", "nan"]
    assert grid["y"][0] == {"a": [1, 2]}
    json.dumps(spec.defining(), allow_nan=False)


def test_sets_have_one_order() -> None:
    names = {f"name{number}" for number in range(50)}
    assert json_like(names) == sorted(names)


def test_a_spec_is_a_spec() -> None:
    spec = load_spec(minimal())
    assert load_spec(spec) == spec
    assert load_spec(spec, ["search.cv=3"]).search.cv == 3


def test_round_trip(write: Callable[..., Path]) -> None:
    spec = load_spec(write(FULL))
    assert SweepSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
    assert load_spec(spec.model_dump(mode="json")).digest() == spec.digest()


def test_a_spec_is_frozen() -> None:
    spec = load_spec(minimal())
    with pytest.raises(ValueError, match="frozen"):
        spec.search.cv = 3  # type: ignore[misc]


def test_an_error_survives_pickling() -> None:
    import pickle

    with pytest.raises(SpecError) as caught:
        load_spec({})
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.faults == caught.value.faults


@pytest.mark.parametrize(
    ("scoring", "refit", "metrics", "chosen"),
    [
        (None, True, ("score",), "score"),
        ("r2", True, ("score",), "score"),
        (["r2"], True, ("r2",), "r2"),
        (["r2", "max_error"], "max_error", ("r2", "max_error"), "max_error"),
        ({"a": "r2", "b": "max_error"}, "b", ("a", "b"), "b"),
    ],
)
def test_metrics(scoring: object, refit: object, metrics: tuple[str, ...], chosen: str) -> None:
    spec = load_spec(changed("search", {"scoring": scoring, "refit": refit}))
    assert (spec.metrics, spec.refit_metric) == (metrics, chosen)


# digest


@pytest.mark.parametrize(
    "setting",
    [
        "name=other",
        "data.store=other.zarr",
        "output.store=other.zarr",
        "output.max_files=300",
        "output.models=none",
        "cluster={kind: slurm, account: x, walltime: 1:00:00}",
        "data.target=[c]",
        "search={}",
    ],
)
def test_digest_does_not_depend_on_places(setting: str) -> None:
    assert load_spec(minimal(), [setting]).digest() == load_spec(minimal()).digest()


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    raw = dict(reversed(minimal().items()))
    raw["models"][0] = dict(reversed(raw["models"][0].items()))
    assert load_spec(raw).digest() == load_spec(minimal()).digest()


@pytest.mark.parametrize(
    "setting",
    [
        "data.features=[a, b]",
        "data.target=null",
        "data.target=[c, d]",
        "data.outputs=separate",
        "data.partition_by=[y]",
        "data.sample_dims=[time]",
        "data.dropna=false",
        "data.dtype=float32",
        "models.0.param_grid.alpha=[0.1]",
        "models.0.param_grid.alpha=[1.0, 0.1]",
        "models.0.estimator={sklearn.linear_model.Ridge: {tol: 0.1}}",
        "models.1.pipeline.1=sklearn.svm.NuSVR",
        "models.1.name=x",
        "search.cv=3",
        "search.scoring=r2",
        "search.refit=false",
        "search.seed=1",
    ],
)
def test_digest_depends_on_what_decides_results(setting: str) -> None:
    assert load_spec(minimal(), [setting]).digest() != load_spec(minimal()).digest()


def test_keys_that_came_later_are_in_a_digest_where_they_are_given() -> None:
    one_split = load_spec(changed("search", {"cv": 1}))
    blocks = load_spec(changed("search", {"cv": 1, "block_samples": 100}))
    assert "block_samples" not in one_split.defining()["search"]
    assert one_split.digest() != blocks.digest()


def test_blocks_want_one_split() -> None:
    with pytest.raises(SpecError, match=r"search.block_samples: .*cv: 1"):
        load_spec(changed("search", {"cv": 3, "block_samples": 100}))


def test_digest_depends_on_the_order_of_named_steps() -> None:
    steps = {"scale": "a.Scale", "poly": "a.Poly", "fit": "a.Fit"}
    swapped = {"poly": "a.Poly", "scale": "a.Scale", "fit": "a.Fit"}
    one = load_spec(changed("models.1.pipeline", steps))
    other = load_spec(changed("models.1.pipeline", swapped))
    assert one.digest() != other.digest()


# JSON Schema


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def test_schema_has_the_keys_and_resolves() -> None:
    schema = json.loads(json.dumps(SweepSpec.model_json_schema(), allow_nan=False))
    assert set(schema["properties"]) == {"name", "data", "models", "search", "cluster", "output"}
    assert set(schema["required"]) == {"data", "models", "output"}
    assert "partition_by" in schema["$defs"]["DataSpec"]["properties"]
    for node in nodes(schema):
        if "$ref" in node:
            assert node["$ref"].removeprefix("#/$defs/") in schema["$defs"]
        if node.get("type") == "object" and "properties" in node:
            assert node["additionalProperties"] is False


def test_every_key_has_a_place_in_the_schema() -> None:
    schema = SweepSpec.model_json_schema()
    for name, definition in schema["$defs"].items():
        if name != "TlsSpec":
            lacking = [k for k, v in definition["properties"].items() if not v]
            assert not lacking, (name, lacking)


# whatever is written, only SpecError comes out

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["~x/y", "a.B", "grid", "slurm", "1:00", "\0", "[key]", "str", "class"]),
    st.dates(),
    st.sampled_from([np.float64("inf"), np.int64(3), np.arange(3), (1, 2), b"x", object()]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


def full() -> Raw:
    from hpc_sweep.spec import parse_yaml

    raw: Raw = parse_yaml(FULL)
    return raw


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_specs_raise_nothing_but_spec_errors(data: st.DataObject) -> None:
    raw = copy.deepcopy(full())
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = raw
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and data.draw(st.integers(0, 3)):
                place = place[key]
                continue
            action = data.draw(st.sampled_from(["replace", "delete", "add"]))
            if action == "delete":
                del place[key]
            elif action == "add" and isinstance(place, dict):
                place[data.draw(st.text(max_size=6))] = data.draw(VALUES)
            else:
                place[key] = data.draw(VALUES)
            break
    spec = None
    with contextlib.suppress(SpecError):
        spec = load_spec(raw)
    if spec is not None:
        assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
        assert spec.refit_metric in spec.metrics
        spec.digest()


@given(
    at=st.integers(0, len(FULL) - 1),
    cut=st.integers(0, 5),
    put=st.text("abc: -[]{}#&*!|>'\"%@`\n\t0.,?~=<\\", max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_mutated_files_raise_nothing_but_spec_errors(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, put: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(FULL[:at] + put + FULL[at + cut :])
    with contextlib.suppress(SpecError):
        load_spec(path)


@given(setting=st.text(max_size=20) | st.from_regex(r"\A[a-z.0-9]{1,12}=.{0,8}\Z"))
@settings(max_examples=200, deadline=None)
def test_any_override_raises_nothing_but_spec_errors(setting: str) -> None:
    with contextlib.suppress(SpecError):
        load_spec(minimal(), [setting])


def test_all_bad_settings_are_reported() -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(minimal(), ["search.cv", "search.cv=[", "models.7.name=x"])
    assert [fault.path for fault in caught.value.faults] == [
        "search.cv",
        "search.cv",
        "models.7.name",
    ]
