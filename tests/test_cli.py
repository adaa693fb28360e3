"""The command line: what it prints, its exit codes, and bad input that leaves nothing behind."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from builders import make_store
from click.testing import CliRunner, Result
from conftest import Spec

from hpc_sweep.cli import main
from hpc_sweep.cli.run import _summary

WriteSpec = Callable[[Spec], Path]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(tmp_path: Path, spec_file: Path, *options: object, code: int = 2) -> str:
    """Run a bad spec by `plan` and by `run`; return the one message; nothing may be written."""
    before = tree(tmp_path)
    messages = []
    for command in ("plan", "run"):
        result = invoke(command, spec_file, *options)
        assert result.exit_code == code, result.output
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.output
        messages.append(result.stderr)
    assert messages[0] == messages[1]
    assert tree(tmp_path) == before
    return messages[0]


def changed(spec: Spec, path: str, value: Any) -> Spec:
    """Return the spec with the value at a dotted path replaced, or removed if it is None."""
    spec = copy.deepcopy(spec)
    place: Any = spec
    *steps, last = path.split(".")
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is None:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return spec


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("data.store", "absent.zarr", ["data.store", "does not exist"]),
        ("data.features", ["wett", "hour"], ["data.features.0", "'wett'", "did you mean 'wet'"]),
        (
            "data.features",
            ["wet", "zone"],
            ["data.features.1", "lacks the sample dimension", "time"],
        ),
        ("data.features", ["wet", "slope"], ["data.features", "'slope' is also the target"]),
        ("data.target", "slop", ["data.target.0", "did you mean 'slope'"]),
        ("data.partition_by", ["latitud"], ["data.partition_by.0", "did you mean 'latitude'"]),
        ("data.partition_by", ["latitude", "longitude", "time"], ["no dimension is left"]),
        ("data.feature", ["wet"], ["data.feature", "unknown key", "did you mean 'features'"]),
        ("data.features", None, ["data.features", "is missing"]),
        (
            "models.0.estimator",
            "sklearn.linear_model.Rigde",
            ["models.0.estimator", "did you mean 'Ridge'"],
        ),
        ("models.0.estimator", "Ridge", ["did you mean 'sklearn.linear_model.Ridge'"]),
        ("models.0.estimator", "sklearnn.linear_model.Ridge", ["cannot be imported"]),
        ("models.0.estimator", "os.system", ["'os.system' is no estimator class"]),
        ("models.0.param_grid", {"alpa": [1]}, ["models.0.param_grid.alpa", "'alpha'"]),
        ("models.1.param_grid", {"C": [1]}, ["models.1.param_grid.C", "no parameter 'C'"]),
        ("models.0.param_grid", {"alpha": []}, ["models.0.param_grid.alpha", "empty list"]),
        ("models.0.param_grid", {"alpha": 1}, ["models.0.param_grid.alpha", "list"]),
        ("models.0.param_grid", [], ["models.0.param_grid", "is empty"]),
        ("models", [], ["models", "at least 1 item"]),
        ("search.cv", 61, ["search.cv", "60 samples"]),
        ("search.cv", 1, ["search.cv", "greater than or equal to 2"]),
        ("search.cv", {"class": "sklearn.model_selection.GroupKFold"}, ["needs groups"]),
        (
            "search.cv",
            {"class": "sklearn.model_selection.KFold", "n_split": 3},
            ["search.cv", "did you mean 'n_splits'"],
        ),
        ("search.scoring", "r22", ["search.scoring", "'r22' is no scorer", "did you mean 'r2'"]),
        ("search.scoring", ["r2", "max_error"], ["search.refit", "r2, max_error"]),
        ("search.seed", -1, ["search.seed"]),
        ("cluster.kind", "slrum", ["cluster.kind", "did you mean 'slurm'"]),
        ("cluster.workers", 0, ["cluster.workers"]),
        ("cluster.kind", "json:Clusterr", ["cluster.kind", "'json' has no class 'Clusterr'"]),
        ("cluster.kind", "external", ["cluster.address", "one of address and scheduler_file"]),
        ("output.store", "https://example.org/x.zarr", ["output.store", "is a URL"]),
    ],
)
def test_bad_input(
    spec: Spec, write_spec: WriteSpec, tmp_path: Path, path: str, value: Any, words: list[str]
) -> None:
    message = refused(tmp_path, write_spec(changed(spec, path, value)))
    for word in words:
        assert word in message


def test_all_faults_at_once(spec: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    spec["data"]["features"] = ["wett", "hour"]
    spec["models"][0]["param_grid"] = {"alpa": [1]}
    spec["search"]["scoring"] = "r22"
    spec["models"][1]["pipelin"] = []
    spec["cluster"]["wokers"] = 3
    message = refused(tmp_path, write_spec(spec))
    assert "has 5 faults" in message
    paths = ["data.features.0", "models.0.param_grid.alpa", "search.scoring"]
    for path in (*paths, "models.1.pipelin", "cluster.wokers"):
        assert f"  {path}: " in message


def test_no_such_spec(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path, tmp_path / "absent.yaml")


def test_spec_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("data: [unclosed\nmodels: {")
    assert "is not YAML" in refused(tmp_path, path)


@pytest.mark.parametrize("kind", ["text", "folder", "half"])
def test_data_is_no_zarr(spec: Spec, write_spec: WriteSpec, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "bad.zarr"
    if kind == "text":
        place.write_text("this is not a data set")
    else:
        place.mkdir()
        if kind == "half":
            (place / "zarr.json").write_text('{"zarr_format": 3, "node')
    message = refused(tmp_path, write_spec(changed(spec, "data.store", str(place))))
    assert "data.store" in message
    assert "not a data set that xarray can open" in message


@pytest.mark.parametrize("name", ["candidate", "split", "status"])
def test_a_dimension_named_like_ours(
    spec: Spec, write_spec: WriteSpec, tmp_path: Path, data: Path, name: str
) -> None:
    source = xr.open_zarr(data, chunks=None, consolidated=False).load()
    renamed = source.rename({"latitude": name}).drop_encoding()
    renamed.to_zarr(tmp_path / "renamed.zarr", consolidated=False)
    spec["data"]["store"] = str(tmp_path / "renamed.zarr")
    spec["data"]["partition_by"] = [name, "longitude"]
    assert f"'{name}' is a name of ours" in refused(tmp_path, write_spec(spec))


def test_store_is_something_else(spec: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    place = Path(spec["output"]["store"])
    place.mkdir()
    (place / "thesis.tex").write_text("precious")
    told = refused(tmp_path, write_spec(spec))
    assert "no store of a sweep: it is a folder that is no zarr; name another output" in told
    (place / "thesis.tex").unlink()
    zarr.create_group(place)
    told = refused(tmp_path, write_spec(spec))
    assert "it is zarr of something else, such as data; name another output.store" in told


def test_store_is_a_file_or_below_one(spec: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    place = Path(spec["output"]["store"])
    place.write_text("precious")
    assert "is a file" in refused(tmp_path, write_spec(spec))
    below = changed(spec, "output.store", str(place / "results.zarr"))
    assert "nothing can be made below it" in refused(tmp_path, write_spec(below))


def test_store_is_the_data(spec: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    bad = changed(spec, "output.store", spec["data"]["store"])
    assert "is the data set itself" in refused(tmp_path, write_spec(bad))


def test_no_permission(
    spec: Spec, write_spec: WriteSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # root may write everywhere: what the system says of a stranger is put in its place
    monkeypatch.setattr("hpc_sweep.prepare.prepared.os.access", lambda path, mode: False)
    assert "no permission to write" in refused(tmp_path, write_spec(spec))


@pytest.mark.parametrize("memory", ["100MB", "300MB"])
def test_too_little_memory(spec: Spec, write_spec: WriteSpec, tmp_path: Path, memory: str) -> None:
    message = refused(tmp_path, write_spec(changed(spec, "cluster.memory", memory)))
    assert "but a worker has" in message
    assert "raise cluster.memory to at least" in message


def test_too_few_files(spec: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    spec["models"][0]["estimator"] = "sklearn.linear_model.SGDRegressor"
    names = ["alpha", "eta0", "power_t", "l1_ratio", "tol", "epsilon"]
    spec["models"][0]["param_grid"] = {name: [0.1] for name in names}
    spec["search"]["scoring"] = {f"r{i}": "r2" for i in range(9)}
    spec["search"]["refit"] = "r0"
    spec["output"]["max_files"] = 100
    assert "output.max_files is 100" in refused(tmp_path, write_spec(spec))


# --- what good input gives -------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Spec]:
    from conftest import small_spec

    from hpc_sweep.spec import load_spec
    from hpc_sweep.sweep import execute

    spec = small_spec(data, tmp_path_factory.mktemp("finished") / "results.zarr")
    return execute(load_spec(spec)).store.path, spec


def test_a_store_of_another_spec(
    finished: tuple[Path, Spec], write_spec: WriteSpec, tmp_path: Path
) -> None:
    store, spec = finished
    bad = changed(changed(spec, "search.cv", 4), "models.0.param_grid.alpha", [0.1, 1])
    before = tree(store)
    message = refused(tmp_path, write_spec(bad))
    assert "search.cv: 3 in the store, 4 in the spec" in message
    assert "alpha" not in message  # which may change
    assert tree(store) == before


def test_a_store_of_other_data(
    finished: tuple[Path, Spec], write_spec: WriteSpec, tmp_path: Path
) -> None:
    _, spec = finished
    source = xr.open_zarr(spec["data"]["store"], chunks=None, consolidated=False).load()
    source["latitude"] = source["latitude"] + 1
    source.to_zarr(tmp_path / "moved.zarr", consolidated=False)
    bad = changed(spec, "data.store", str(tmp_path / "moved.zarr"))
    assert "holds results of other data" in refused(tmp_path, write_spec(bad))


def test_another_place_cluster_or_name_is_no_change(
    finished: tuple[Path, Spec], write_spec: WriteSpec, tmp_path: Path
) -> None:
    _, spec = finished
    source = xr.open_zarr(spec["data"]["store"], chunks=None, consolidated=False).load()
    source.to_zarr(tmp_path / "copy.zarr", consolidated=False)
    moved = changed(changed(spec, "data.store", str(tmp_path / "copy.zarr")), "name", "other")
    result = invoke("run", write_spec(moved), "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "complete already, nothing to do: 46 done, 2 empty of 48 partitions" in result.output
    facts = json.loads(invoke("run", write_spec(spec), "--json").stdout)  # back to what it was
    assert (facts["name"], facts["complete"], facts["fits_of_this_run"]) == ("small", True, 0)
    assert sum(facts["best_model"].values()) == facts["partitions"]["done"] == 46


def test_status(finished: tuple[Path, Spec]) -> None:
    text = invoke("status", finished[0])
    assert text.exit_code == 0
    assert "small: complete" in text.output
    assert "46 done, 2 empty" in text.output
    (facts,) = json.loads(invoke("status", finished[0], "--json").output)
    assert facts["complete"] is True
    assert facts["partitions"]["done"] == 46
    assert facts["fits_done"] == facts["fits"] == 48 * 5 * 3
    assert facts["last_event"]["result"] == "complete"


def test_status_of_nothing(tmp_path: Path) -> None:
    result = invoke("status", tmp_path / "absent.zarr")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_results(finished: tuple[Path, Spec]) -> None:
    best = xr.open_zarr(finished[0], chunks=None)["best_score"].load()
    rows = json.loads(invoke("results", finished[0], "--format", "json").output)
    assert len(rows) == 48
    scores = [row["score"] for row in rows if row["score"] is not None]
    assert scores == sorted(scores, reverse=True)
    first = rows[0]
    place = {"latitude": first["latitude"], "longitude": first["longitude"]}
    assert first["score"] == best.sel(place).item() == float(best.max())
    assert [row["status"] for row in rows[-2:]] == ["empty", "empty"]
    table = list(
        csv.DictReader(io.StringIO(invoke("results", finished[0], "--format", "csv").output))
    )
    assert len(table) == 48
    assert float(table[0]["score"]) == first["score"]
    assert json.loads(table[0]["params"]) == first["params"]
    shown = invoke("results", finished[0], "--top", 3).output
    assert "3 of 48 partitions" in shown
    assert f"{first['score']:.4f}" in shown


def test_plan_json(spec: Spec, write_spec: WriteSpec) -> None:
    facts = json.loads(invoke("plan", write_spec(spec), "--json").output)
    assert facts["partitions"] == 48
    assert facts["fits"] == 48 * 5 * 3
    assert facts["read_factor"] == 2.0  # four source chunks, eight units for two workers
    assert facts["files"] < facts["max_files"]
    assert facts["store_exists"] is False


def test_set_and_options(spec: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    options = ["--set", "search.cv=4", "--set", "models.0.param_grid.alpha=[1e-3]"]
    options += ["--workers", "3", "--store", str(tmp_path / "other.zarr")]
    facts = json.loads(invoke("plan", write_spec(spec), "--json", *options).output)
    assert (facts["splits"], facts["candidates"], facts["workers"]) == (4, 3, 3)
    assert facts["store"] == str(tmp_path / "other.zarr")


def test_init_writes_a_spec_that_needs_only_data(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "sweep.yaml"
    assert invoke("init", path).exit_code == 0
    result = invoke("plan", path)
    assert result.exit_code == 2
    assert "data.zarr' does not exist" in result.stderr
    options = ["data.features=[wet,hour]", "data.target=slope", f"data.store={data}"]
    settings = [part for option in options for part in ("--set", option)]
    assert invoke("plan", path, *settings).exit_code == 0
    again = invoke("init", path)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_schema_is_one_and_accepts_the_starter(tmp_path: Path) -> None:
    schema = json.loads(invoke("schema").output)
    assert set(schema["properties"]) == {"name", "data", "models", "search", "cluster", "output"}
    assert schema["additionalProperties"] is False


def test_our_own_fault_is_said_to_be_ours(
    spec: Spec, write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("hpc_sweep.prepare.prepared.make_plan", broken)
    path = write_spec(spec)
    result = invoke("plan", path)
    assert result.exit_code == 1
    assert "a fault of hpc-sweep; --debug shows where" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in invoke("--debug", "plan", path).stderr


def test_half_a_map(finished: tuple[Path, Spec]) -> None:
    """The results are a map with the data's own labels."""
    best = xr.open_zarr(finished[0], chunks=None)["best_score"]
    assert best["latitude"].attrs["units"] == "degrees_north"
    assert np.isfinite(best).sum() == 46


@pytest.mark.parametrize(("empty", "said"), [(12, True), (11, False)])
def test_why_all_partitions_are_empty(tmp_path: Path, empty: int, said: bool) -> None:
    counts = {"done": 12 - empty, "empty": empty}
    store = make_store(tmp_path)
    outcome: Any = SimpleNamespace(counts=counts, store=store, progress=None, ranked=0)
    assert ("no sample has all features and the target" in _summary(outcome)) is said
