"""Every recipe of examples/, small: it runs as its page says; its numbers are scikit-learn's."""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import REPOSITORY
from distributed import LocalCluster
from nbclient import NotebookClient
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import Ridge, SGDClassifier
from sklearn.metrics import calinski_harabasz_score
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneGroupOut, cross_val_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

import hpc_sweep
from hpc_sweep.cli.plan import plan_facts
from hpc_sweep.clusters import make_cluster
from hpc_sweep.clusters.jobqueue import JobQueue
from hpc_sweep.machines import own_folder
from hpc_sweep.prepare import create, prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.work import open_bench
from hpc_sweep.work.collections import CollectionTasks

EXAMPLES = REPOSITORY / "examples"
ONE_WORKER = ("cluster.workers=1", "cluster.memory=1GB", "cluster.performance_report=false")
RECIPES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())

Copied = Callable[[str], Path]


@pytest.fixture
def copied(tmp_path: Path) -> Copied:
    """Return a function that copies an example, whose data and store go beside its spec."""

    def copy(name: str) -> Path:
        ours = shutil.ignore_patterns("*.zarr", "*.run", "*.parquet", "__pycache__")
        return Path(shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=ours))

    return copy


def script(file: Path, *arguments: object) -> None:
    """Run a script of an example, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(file), *map(str, arguments)])
        patch.syspath_prepend(str(file.parent))
        with contextlib.suppress(SystemExit):
            runpy.run_path(str(file), run_name="__main__")


def states(out: Path, *, size: int = 2, days: int) -> xr.Dataset:
    """Make the data that several examples take from the quickstart."""
    script(EXAMPLES / "quickstart" / "make_data.py", out, "--size", size, "--days", days)
    return xr.open_zarr(out).load()


def run(folder: Path, *settings: str, spec: str = "sweep.yaml") -> xr.Dataset:
    return hpc_sweep.run(folder / spec, [*ONE_WORKER, *settings]).load()


def samples(
    data: xr.Dataset, features: Sequence[str], targets: Sequence[str]
) -> tuple[Any, Any, Any]:
    """Return X, y and dates of one pixel's data, without the days that lack something."""
    kept = data[[*features, *targets]].to_dataframe().dropna()
    y = kept[list(targets)].to_numpy("float64")
    return kept[list(features)].to_numpy("float64"), y[:, 0] if len(targets) == 1 else y, kept.index


def first_pixel(results: xr.Dataset) -> dict[str, float]:
    scores = results["best_score"].stack(pixel=["latitude", "longitude"])
    latitude, longitude = scores.dropna("pixel", how="all")["pixel"].values[0]
    return {"latitude": latitude, "longitude": longitude}


@pytest.mark.parametrize("name", RECIPES)
def test_every_example_has_a_page(name: str) -> None:
    page = (EXAMPLES / name / "README.md").read_text()
    for title in ("## Before", "## Now"):
        assert title in page
    assert "cluster" in page


ASKED = {
    "slurm": ["-p q", "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=1", "--mem=1240M"],
    "pbs": ["-q q", "-l select=1:ncpus=1:mem=1240mb"],
}


@pytest.mark.parametrize(("kind", "prefix"), [("slurm", "#SBATCH"), ("pbs", "#PBS")])
@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_queue_is_one_option_away(path: Path, kind: str, prefix: str, tmp_path: Path) -> None:
    """A script for a worker asks for it in that queue's own words, and in no other's."""
    if path.name == "fargate.yaml":
        pytest.skip("a machine profile, looked at elsewhere")
    settings = [f"cluster={{kind: {kind}, memory: 1GB, queue: q}}"]
    spec = load_spec(path, settings)
    made = make_cluster(spec.cluster, tmp_path / "x.run", lambda event, **facts: None)
    assert isinstance(made, JobQueue)
    header = [line for line in made.job_script().splitlines() if re.match("#[A-Z]", line)]
    assert {f"{prefix} {words}" for words in ASKED[kind]} <= set(header)
    assert {line.split()[0] for line in header} == {prefix}


def test_grid_cells(copied: Copied) -> None:
    folder = copied("grid-cells")
    data = states(folder / "states.zarr", days=730)
    results = run(folder)
    spec = load_spec(folder / "sweep.yaml")
    here = first_pixel(results)
    X, y, time = samples(data.sel(here), spec.data.features, ["slope"])
    seen = time < "2023-03-15"
    model = make_pipeline(StandardScaler(), SVR(epsilon=0.002))
    search = GridSearchCV(model, spec.models[0].param_grid, cv=3, scoring="r2")
    search.fit(X[seen], y[seen])
    found = results.sel(here)
    assert sorted(found["mean_test_score"].values) == sorted(search.cv_results_["mean_test_score"])
    assert found["holdout_score"] == search.score(X[~seen], y[~seen])


def test_grid_cells_by_season(copied: Copied) -> None:
    folder = copied("grid-cells")
    data = states(folder / "states.zarr", days=730)
    results = run(folder, "data.partition_by=[latitude, longitude, {time: season}]")
    here = first_pixel(results)
    X, y, time = samples(data.sel(here), load_spec(folder / "sweep.yaml").data.features, ["slope"])
    summer = (time < "2023-03-15") & time.month.isin([6, 7, 8])
    model = make_pipeline(StandardScaler(), SVR(epsilon=0.002, kernel="rbf", C=0.1))
    found = results.sel(here).sel(season="JJA")
    expected = cross_val_score(model, X[summer], y[summer], cv=3, scoring="r2")
    assert (found["test_score"].values == expected).all(axis=1).sum() == 1


def test_years(copied: Copied) -> None:
    folder = copied("years")
    data = states(folder / "states.zarr", days=1388)
    results = run(folder)
    spec = load_spec(folder / "sweep.yaml")
    here = first_pixel(results)
    X, y, time = samples(data.sel(here), spec.data.features, ["slope", "leaf_area_index"])
    years = LeaveOneGroupOut().split(X, groups=time.year)
    assert results["split"].values.tolist() == [2022, 2023, 2024, 2025]
    model = make_pipeline(StandardScaler(), KNeighborsRegressor(20))
    expected = cross_val_score(model, X, y, cv=years, scoring="r2")
    found = results["test_score"].sel(here)
    np.testing.assert_array_equal(found[-1], expected)
    model = make_pipeline(StandardScaler(), Ridge(0.1))
    expected = cross_val_score(model, X, y, cv=LeaveOneGroupOut(), groups=time.year, scoring="r2")
    np.testing.assert_allclose(found[0], expected, atol=1e-9)


def test_texts(copied: Copied) -> None:
    folder = copied("texts")
    results = run(folder, "data.loader_args.documents=120")
    texts, topics = runpy.run_path(str(folder / "corpus.py"))["texts"](120)
    steps = {
        "vect": HashingVectorizer(n_features=16384),
        "tfidf": TfidfTransformer(),
        "clf": SGDClassifier(random_state=0),
    }
    grid = load_spec(folder / "sweep.yaml").models[0].param_grid
    search = GridSearchCV(Pipeline(list(steps.items())), grid, cv=3, scoring="accuracy")
    search.fit(texts, topics)
    assert results["best_score"] == search.best_score_ > 0.4
    assert sorted(results["mean_test_score"].values) == sorted(
        search.cv_results_["mean_test_score"]
    )


@pytest.mark.slurm
def test_texts_on_slurm_by_one_option(
    copied: Copied,
    slurm_cluster: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own_folder().mkdir(parents=True)
    profile = {"description": "the throwaway Slurm", **slurm_cluster}
    del profile["workers"]
    (own_folder() / "ours.yaml").write_text(json.dumps(profile))
    folder = copied("texts")
    settings = ["data.loader_args.documents=60", "cluster.machine=ours"]
    results = hpc_sweep.run(folder / "sweep.yaml", settings)
    assert (results["status"] == 1).all()
    workers = (folder / "results.zarr.run" / "logs").glob("*worker*")
    assert len(list(workers)) == 2


def test_one_search_in_three_ways(copied: Copied, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied("one-search")
    settings = [word for each in ONE_WORKER for word in ("--set", each)]
    script(folder / "compare.py", "--samples", 200, *settings)
    table = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    X, y = runpy.run_path(str(folder / "samples.py"))["samples"](200)
    grid = {"C": [0.001, 0.01, 0.1, 1, 10, 100]}
    search = GridSearchCV(SVC(), grid, cv=5, scoring="accuracy").fit(X, y)
    expected = [f"{search.best_params_['C']:g}", f"{search.best_score_:.4f}"]
    assert [row[-2:] for row in table] == [expected] * 3
    assert [row[0] for row in table][::2] == ["serial", "cluster"]


def test_larger_than_memory(copied: Copied) -> None:
    folder = copied("larger-than-memory")
    script(folder / "make_data.py", folder / "samples.zarr", "--samples", 4000, "--block", 500)
    results = run(folder, "search.block_samples=500")
    assert results["partial_fit_calls"].values.max() >= 4
    data = xr.open_zarr(folder / "samples.zarr", consolidated=False).load()
    X = np.stack([data[f"x{column}"].values for column in range(10)], axis=1)
    model = hpc_sweep.load_model(folder / "results.zarr")
    assert model.score(X, data["label"]) == pytest.approx(float(results["best_score"]), abs=0.1)
    whole = SGDClassifier(alpha=model.alpha, penalty=model.penalty, random_state=0)
    whole.fit(X[:3000], data["label"][:3000])
    assert whole.score(X, data["label"]) == pytest.approx(float(results["best_score"]), abs=0.1)


def test_hyperband(copied: Copied) -> None:
    folder = copied("larger-than-memory")
    script(folder / "make_data.py", folder / "samples.zarr", "--samples", 2000, "--block", 500)
    search = "{strategy: hyperband, max_iter: 3, block_samples: 500, scoring: accuracy}"
    results = run(folder, f"search={search}")
    assert set(results["bracket"].values) == {0, 1}
    assert results["best_score"] > 0.6


def test_blobs(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    reading = CollectionTasks._read
    monkeypatch.setattr(
        CollectionTasks, "_read", lambda *about: (read.append(about), reading(*about))[1]
    )
    monkeypatch.setattr("hpc_sweep.sweep.execution.UNIT_SECONDS", 1e-9)  # as if each took long
    folder = copied("blobs")
    size = ["data.loader_args.blocks=8", "data.loader_args.points=250"]
    results = run(
        folder, *size, "search.block_samples=250", "models.0.param_grid.n_clusters=[3, 4]"
    )
    assert results["n_samples"] == 2000
    assert results["best_param_n_clusters"] == 4
    assert len(read) == 1  # candidates share the blocks
    points = runpy.run_path(str(folder / "points.py"))["blobs"](8, 250)
    X = np.stack([points["x"], points["y"]], axis=1)
    # the index grows with the points, of which an eighth is for testing
    whole = calinski_harabasz_score(X, KMeans(4, n_init=3, random_state=0).fit_predict(X))
    assert float(results["best_score"]) == pytest.approx(whole / 8, rel=0.2)


def test_a_worker_finds_the_scorer_beside_the_loader(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("blobs")
    small = ["data.loader_args={blocks: 2, points: 50}", "models.0.param_grid={n_clusters: [2]}"]
    spec = load_spec(folder / "sweep.yaml", small)
    store = create(prepare(spec))
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "blobs" not in each])
    monkeypatch.delitem(sys.modules, "separation")
    bench = open_bench(str(store.path), spec.model_dump_json())
    assert bench.models[0].scorer


def test_blobs_stay_in_blocks(copied: Copied) -> None:
    spec = load_spec(copied("blobs") / "sweep.yaml", ["data.loader_args.points=100"])
    facts = plan_facts(prepare(spec))
    assert facts["samples_per_block"] == 10_000


def test_table(copied: Copied) -> None:
    folder = copied("table")
    script(folder / "make_data.py", folder / "table.parquet", "--rows", 40)
    results = run(folder)
    found = runpy.run_path(str(folder / "errors.py"))["errors"](str(folder / "results.zarr"))
    assert len(found) == 10 * 4
    assert results["best_model"].sel(group="g0") == "linearregression"
    rows = pd.read_parquet(folder / "table.parquet").query("group == 'g3'")
    X, y, splits = rows[["x1", "x2"]], rows["y"], KFold(4, shuffle=True, random_state=0)
    errors = [
        -cross_val_score(model, X.to_numpy(), y, cv=splits, scoring="neg_mean_absolute_error")
        for model in (KNeighborsRegressor(3), KNeighborsRegressor(10))
    ]
    error = found.query("group == 'g3'").set_index("model")["error"]
    assert error["kneighborsregressor"] == min(map(np.mean, errors))


def test_table_with_optuna(copied: Copied) -> None:
    folder = copied("table")
    script(folder / "make_data.py", folder / "table.parquet", "--rows", 40)
    results = run(folder, "search.n_trials=4", spec="optuna.yaml")
    assert results.sizes == {"group": 10, "trial": 4, "split": 4}
    found = runpy.run_path(str(folder / "errors.py"))["errors"](str(folder / "optuna.zarr"))
    best = found.groupby("group")["error"].min()
    np.testing.assert_allclose(best, -results["best_score"].to_series())
    rows = pd.read_parquet(folder / "table.parquet").query("group == 'g3'")
    X, y, splits = rows[["x1", "x2"]], rows["y"], KFold(4, shuffle=True, random_state=0)
    weights = json.loads(results["param_weights"].attrs["categories"])
    trials = results.sel(group="g3").dropna("trial", subset=["param_n_neighbors"])
    errors = []
    for number, weight in zip(trials["param_n_neighbors"], trials["param_weights"], strict=True):
        model = KNeighborsRegressor(int(number), weights=weights[int(weight)])
        scores = cross_val_score(
            model, X.to_numpy(), y, cv=splits, scoring="neg_mean_absolute_error"
        )
        errors.append(-scores.mean())
    error = found.query("group == 'g3'").set_index("model")["error"]
    assert error["kneighborsregressor"] == min(errors)


def test_large_prediction(copied: Copied) -> None:
    folder = copied("large-prediction")
    script(folder / "make_data.py", folder / "train.zarr", "--samples", 200)
    script(folder / "make_data.py", folder / "new.zarr", "--samples", 20_000, "--first", 200)
    results = run(folder)
    train, new = (
        xr.open_zarr(folder / f"{name}.zarr", consolidated=False).load()
        for name in ("train", "new")
    )
    X, X_new = (data[["x0", "x1", "x2", "x3"]].to_array().values.T for data in (train, new))
    search = GridSearchCV(SVC(), {"C": [1, 10, 100], "gamma": [0.1, 1]}, cv=5, scoring="accuracy")
    search.fit(X, train["label"])
    assert results["best_score"] == search.best_score_
    places = [str(folder / f"{name}.zarr") for name in ("results", "new", "predicted")]
    hpc_sweep.predict(*places, ONE_WORKER)
    expected = search.predict(X_new)
    found = xr.open_zarr(places[2])["label"]
    assert found.chunks == ((10_000, 10_000),)
    np.testing.assert_array_equal(found, expected)
    accuracy = runpy.run_path(str(folder / "score.py"))["accuracy"](places[2], places[1])
    assert accuracy == search.score(X_new, new["label"])


class Rented(LocalCluster):
    """Stands for a cloud's class: made with options of its own, and scaled."""

    made: ClassVar[list[str]] = []

    def __init__(self, image: str) -> None:
        self.made.append(image)
        super().__init__(n_workers=0, processes=False, dashboard_address="127.0.0.1:0")

    def scale(self, n: int) -> None:
        self.made.append(f"{n} workers")
        super().scale(n)


@pytest.mark.filterwarnings("ignore:.*is not encrypted")
def test_other_cluster(copied: Copied) -> None:
    folder = copied("other-cluster")
    data = states(folder / "states.zarr", days=60)
    kind = f"cluster.kind={__name__}:Rented"
    results = run(folder, kind, "cluster.options={image: hpc-sweep}")
    assert Rented.made[:2] == ["hpc-sweep", "1 workers"]
    here = first_pixel(results)
    X, y, _ = samples(data.sel(here), load_spec(folder / "sweep.yaml").data.features, ["slope"])
    expected = cross_val_score(Ridge(0.001), X, y, cv=5, scoring="r2")
    np.testing.assert_allclose(results["test_score"].sel(here)[0], expected, atol=1e-9)


def test_other_cluster_as_it_stands(copied: Copied) -> None:
    folder = copied("other-cluster")
    states(folder / "states.zarr", days=60)
    results = hpc_sweep.run(folder / "sweep.yaml", ["cluster.workers=1"]).load()
    assert (results["partition_status"] == 1).all()


def test_a_profile_of_a_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own_folder().mkdir(parents=True)
    shutil.copy(EXAMPLES / "other-cluster" / "fargate.yaml", own_folder())
    settings = ["cluster={machine: fargate}"]
    cluster = load_spec(EXAMPLES / "quickstart" / "sweep.yaml", settings).cluster
    assert cluster.kind == "dask_cloudprovider.aws:FargateCluster"
    assert cluster.workers == 20


@pytest.mark.filterwarnings("default")  # of Jupyter's own
def test_quickstart_and_notebook(copied: Copied) -> None:
    quickstart = copied("quickstart")
    data = states(quickstart / "soil_moisture.zarr", size=4, days=60)
    results = run(quickstart)
    spec = load_spec(quickstart / "sweep.yaml")
    here = first_pixel(results)
    X, y, _ = samples(data.sel(here), spec.data.features, ["slope"])
    expected = cross_val_score(Ridge(0.001), X, y, cv=5, scoring="r2")
    np.testing.assert_allclose(results["test_score"].sel(here)[0], expected, atol=1e-9)
    folder = copied("notebook")
    notebook = nbformat.read(folder / "explore.ipynb", as_version=4)
    client = NotebookClient(notebook, resources={"metadata": {"path": str(folder)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    counts = dict(pair.split(": ") for pair in outputs[1]["data"]["text/plain"][1:-1].split(",\n "))
    assert int(counts["'done'"]) == int((results["partition_status"] == 1).sum())
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(
        "hpc_sweep" in cell.source for cell in notebook.cells if cell.cell_type == "code"
    )
