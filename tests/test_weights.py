"""Sample weights: the numbers are those of scikit-learn's searches fitted with them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import xarray as xr
from conformance import Array, Case, evaluator_of, samples
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import hpc_sweep
from hpc_sweep.errors import SpecError
from hpc_sweep.prepare import load, prepare
from hpc_sweep.search import Evaluation, Task, weighs, weight_parameter
from hpc_sweep.search.weighing import score
from hpc_sweep.store import Store
from hpc_sweep.work import open_bench

ONE_WORKER = {"kind": "local", "workers": 1, "memory": "1GB", "performance_report": False}


def n_heavy(estimator: Any, X: Array, y: Array, sample_weight: Array | None = None) -> float:
    return float(np.sum(sample_weight > 1)) if sample_weight is not None else -1.0


def n_test(estimator: Any, X: Array, y: Array) -> float:
    return float(len(X))


class TakesAnything(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the weighted mean; has nothing to say of parameters that it does not know."""

    def fit(self, X: Array, y: Array, **more: Any) -> TakesAnything:
        self.mean_ = np.average(y, weights=more.get("sample_weight"))
        return self

    def predict(self, X: Array) -> Array:
        return np.full(len(X), self.mean_)


def evaluated(case: Case, X: Array, y: Array | None, w: Any) -> tuple[Evaluation, list[int]]:
    """Return what is found, and how many candidates each shared fit had."""
    evaluator, splitter = evaluator_of(case)
    task = Task(X, y, {0: list(splitter.split(X, y))}, weights=w)
    groups = [len(rows) for rule, rows in evaluator.groups if rule]
    return evaluator.evaluate([task])[0], groups


def searched(case: Case, X: Array, y: Array | None, w: Any) -> Mapping[str, Any]:
    search = GridSearchCV(
        case.estimator,
        case.param_grid,
        cv=case.cv,
        scoring=case.scoring,
        refit=False,
        return_train_score=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results: Mapping[str, Any] = search.fit(X, y, sample_weight=w).cv_results_
    return results


def assert_equal(found: Evaluation, expected: Mapping[str, Any], tolerance: float = 0.0) -> None:
    assert not found.failed.any()
    for kind, scores in (("test", found.scores), ("train", found.train_scores)):
        for metric, values in scores.items():
            for column in range(values.shape[1]):
                wanted = expected[f"split{column}_{kind}_{metric}"]
                assert np.isfinite(wanted).all()
                np.testing.assert_allclose(values[:, column], wanted, rtol=0, atol=tolerance)


def weights_of(X: Array) -> Array:
    w = np.random.default_rng(7).exponential(size=len(X)) ** 2
    w[::9] = 0
    return w


BARE = {
    "ridge": Case(Ridge(), {"alpha": [0.1, 10, 1000]}, None, scoring=["r2", "neg_max_error"]),
    "least squares": Case(LinearRegression(), {"fit_intercept": [True, False]}, None),
    "a scorer that takes none": Case(SVR(), {"C": [1, 10]}, None, scoring="neg_max_error"),
    "a function": Case(SVR(), {"C": [1, 2]}, None, scoring=n_heavy),
    "a function that takes none": Case(SVR(), {"C": [1, 2]}, None, scoring=n_test),
    "pruned trees": Case(DecisionTreeRegressor(random_state=0), {"ccp_alpha": [0, 0.1, 1]}, None),
    "forest": Case(
        RandomForestClassifier(random_state=0),
        {"n_estimators": [3, 7], "max_depth": [2, 4]},
        None,
        scoring=["roc_auc_ovr", "accuracy", "neg_log_loss"],
    ),
    "bags": Case(BaggingRegressor(random_state=0), {"n_estimators": [2, 5]}, None),
    "boosting": Case(GradientBoostingRegressor(random_state=0), {"n_estimators": [3, 9]}, None),
    "histograms": Case(HistGradientBoostingClassifier(), {"max_iter": [2, 5]}, None),
    "AdaBoost": Case(AdaBoostClassifier(random_state=0), {"n_estimators": [2, 6]}, None),
    "any keyword": Case(
        VotingRegressor([("a", Ridge()), ("b", SVR())]), {"a__alpha": [1, 9]}, None
    ),
}
SHARING = {"pruned trees", "forest", "bags", "boosting", "histograms", "AdaBoost"}


@pytest.mark.parametrize("name", BARE)
def test_numbers_are_those_of_a_search(name: str) -> None:
    case = BARE[name]
    X, y = samples(sklearn.base.is_classifier(case.estimator))
    w = weights_of(X)
    found, groups = evaluated(case, X, y, w)
    assert bool(groups) == (name in SHARING or name in ("ridge", "least squares"))
    assert_equal(found, searched(case, X, y, w))
    unweighted = evaluator_of(case)[0].evaluate([Task(X, y, {0: list(KFold(3).split(X))})])[0]
    same = [np.array_equal(v, unweighted.scores[m]) for m, v in found.scores.items()]
    assert all(same) == (name == "a function that takes none")


def test_without_a_target() -> None:
    case = Case(KMeans(n_init=1, random_state=0), {"n_clusters": [2, 4]}, None)
    X, _ = samples(False)
    found, _ = evaluated(case, X, None, weights_of(X))
    assert_equal(found, searched(case, X, None, weights_of(X)))


def test_the_last_step_of_a_pipeline_is_weighted() -> None:
    """scikit-learn says so itself with metadata routing, without which its pipelines refuse."""
    X, y = samples(False)
    w = weights_of(X)
    grid = {"svr__C": [0.1, 10.0], "pca__n_components": [2, 4]}
    case = Case(make_pipeline(StandardScaler(), PCA(), SVR()), grid, None)
    found, groups = evaluated(case, X, y, w)
    assert groups == [4]
    with sklearn.config_context(enable_metadata_routing=True):
        last = SVR().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        steps = [("standardscaler", scaler), ("pca", PCA()), ("svr", last)]
        expected = searched(Case(Pipeline(steps), grid, None), X, y, w)
    assert_equal(found, expected)


@pytest.mark.parametrize(
    "grid",
    [
        {"svr": [SVR(), KNeighborsRegressor()]},
        {"svr": [make_pipeline(PCA(2), SVR()), SVR(), Ridge()]},
        {"svr": [make_pipeline(PCA(2), SVR()), TakesAnything()]},
    ],
    ids=["one takes none", "one is a pipeline", "one takes anything"],
)
def test_candidates_that_take_weights_otherwise(grid: dict[str, Any]) -> None:
    X, y = samples(False)
    w = weights_of(X)
    case = Case(make_pipeline(StandardScaler(), SVR()), grid, None, train=False)
    found, _ = evaluated(case, X, y, w)
    for row, last in enumerate(grid["svr"]):
        pipeline = make_pipeline(StandardScaler(), last)
        name = weight_parameter(pipeline)
        if name is None:
            words = "TypeError: KNeighborsRegressor.fit takes no sample weights"
            assert found.messages[row] == f"split 0: {words}"
            continue
        for column, (train, test) in enumerate(KFold(3).split(X)):
            pipeline.fit(X[train], y[train], **{name: w[train]})
            wanted = pipeline.score(X[test], y[test], sample_weight=w[test])
            assert found.scores["score"][row, column] == wanted


def test_a_function_among_several_scorers() -> None:
    X, y = samples(False)
    scoring = {"heavy": "test_weights:n_heavy", "count": "test_weights:n_test", "r2": "r2"}
    case = Case(SVR(), {"C": [1.0, 2.0]}, None, scoring=scoring)
    found, _ = evaluated(case, X, y, weights_of(X))
    assert found.messages == ["", ""]
    assert (found.scores["heavy"] > 0).all()
    assert (found.scores["count"] == 30).all()


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (Ridge(), "sample_weight"),
        (make_pipeline(StandardScaler(), Ridge()), "ridge__sample_weight"),
        (make_pipeline(PCA(), make_pipeline(PCA(), SVR())), "pipeline__svr__sample_weight"),
        (TransformedTargetRegressor(), "sample_weight"),
        (TransformedTargetRegressor(make_pipeline(PCA(), SVR())), "svr__sample_weight"),
        (VotingRegressor([("a", Ridge())]), "sample_weight"),
        (VotingRegressor([("a", KNeighborsRegressor())]), None),
        (OneVsRestClassifier(LogisticRegression()), None),
        (KNeighborsRegressor(), None),
        (make_pipeline(PCA(), KNeighborsRegressor()), None),
        (make_pipeline(PCA(), "passthrough"), None),
    ],
    ids=str,
)
def test_by_which_name_a_fit_takes_weights(estimator: Any, name: str | None) -> None:
    assert weight_parameter(estimator) == name
    if name is not None:
        X, y = samples(False)
        estimator.fit(X, y, **{name: np.ones(len(X))})


def test_which_scorers_take_weights() -> None:
    for scoring, takes in (("r2", True), ("neg_max_error", False), (None, True)):
        scorer = sklearn.metrics.check_scoring(SVR(), scoring)
        assert weighs(scorer, make_pipeline(PCA(), SVR())) is takes
    assert not weighs(sklearn.metrics.check_scoring(PCA()), make_pipeline(PCA()))


# sweeps


def make_data(folder: Path) -> xr.Dataset:
    rng = np.random.default_rng(5)
    shape = (3, 80)
    a, b = rng.normal(size=(2, *shape))
    w = rng.exponential(size=shape)
    w[0, 3:6] = np.nan
    w[2] *= -1
    data = xr.Dataset(
        {
            "a": (("x", "time"), a),
            "b": (("x", "time"), b),
            "t": (("x", "time"), a - b + rng.normal(size=shape)),
            "w": (("x", "time"), w),
            "year_weight": ("time", rng.integers(1, 4, 80)),
            "label": (("x", "time"), np.where(a > 0, "up", "down").astype(object)),
        },
        coords={"time": pd.date_range("2001-01-01", periods=80)},
    )
    data.to_netcdf(folder / "in.nc")
    return data


def spec_of(folder: Path, *models: dict[str, Any], **keys: Any) -> dict[str, Any]:
    search = keys.pop("search", {})
    data = {
        "store": str(folder / "in.nc"),
        "features": ["a", "b"],
        "target": "t",
        "partition_by": "x",
        "sample_weight": "w",
        **keys,
    }
    raw = {"data": data, "models": list(models), "search": {"cv": 3, **search}}
    return {**raw, "cluster": ONE_WORKER, "output": {"store": str(folder / "results.zarr")}}


RIDGE = {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.5, 50.0]}}
TREE = {
    "estimator": "sklearn.tree.DecisionTreeClassifier",
    "param_grid": {"max_depth": [1, 2, 3, 4], "min_samples_leaf": [1, 5]},
}


def arrays(data: xr.Dataset, x: int, weight: str = "w") -> tuple[Array, Array, Array]:
    """Return X, y and weights of a partition, without samples that lack any."""
    here = data.isel(x=x)
    w = here[weight].values
    kept = ~np.isnan(w)
    return np.stack([here["a"], here["b"]], axis=1)[kept], here["t"].values[kept], w[kept]


def test_a_sweep_with_a_holdout(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    raw = spec_of(tmp_path, RIDGE, holdout={"time": "2001-03-01"})
    results = hpc_sweep.run(raw).load()
    held = int((data["time"] >= np.datetime64("2001-03-01")).sum())
    for x in range(2):
        X, y, w = arrays(data, x)
        search = GridSearchCV(Ridge(), RIDGE["param_grid"], cv=3)
        search.fit(X[:-held], y[:-held], sample_weight=w[:-held])
        found = results.isel(x=x)
        assert found["n_samples"] == len(y) - held == (56 if x == 0 else 59)
        wanted = search.cv_results_["mean_test_score"]
        np.testing.assert_array_equal(found["mean_test_score"], wanted)
        score = search.best_estimator_.score(X[-held:], y[-held:], sample_weight=w[-held:])
        assert found["holdout_score"] == score
        model = hpc_sweep.load_model(tmp_path / "results.zarr", x=x)
        np.testing.assert_array_equal(model.coef_, search.best_estimator_.coef_)
    assert results["partition_status"].values.tolist()[:2] == [1, 1]
    assert results["message"].isel(x=2).values[0].startswith("split 0: ")
    assert np.isnan(results["mean_test_score"].isel(x=2)).all()


def test_halving_with_derived_weights(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    keys = {"target": "label", "sample_weight": "time.dayofyear", "search": {"strategy": "halving"}}
    results = hpc_sweep.run(spec_of(tmp_path, TREE, **keys)).load()
    store = Store.open(tmp_path / "results.zarr")
    seed = open_bench(str(store.path), store.spec.model_dump_json()).seed(np.array([1]))
    X = arrays(data, 1)[0]
    tree = DecisionTreeClassifier(random_state=seed)
    search = HalvingGridSearchCV(tree, TREE["param_grid"], cv=3, random_state=seed)
    search.fit(X, data["label"].isel(x=1).values, sample_weight=np.arange(1.0, 81))
    found = results.isel(x=1)
    assert found["n_resources"].values.tolist() == search.n_resources_
    assert float(found["best_score"]) == search.best_score_


@pytest.mark.parametrize("strategy", ["random", "optuna"])
def test_drawn_candidates(tmp_path: Path, strategy: str) -> None:
    data = make_data(tmp_path)
    model = {"estimator": "sklearn.svm.SVR", "param_distributions": {"C": [0.1, 1.0, 10.0]}}
    counts = {"optuna": {"n_trials": 3, "trials_at_once": 3}, "random": {"n_iter": 3}}
    search = {"strategy": strategy, **counts[strategy]}
    results = hpc_sweep.run(spec_of(tmp_path, model, search=search)).load().isel(x=1)
    X, y, w = arrays(data, 1)
    params = results["param_C"].values.tolist()
    expected = GridSearchCV(SVR(), [{"C": [C]} for C in params], cv=3).fit(X, y, sample_weight=w)
    found = results["mean_test_score"].values
    np.testing.assert_array_equal(found, expected.cv_results_["mean_test_score"])


PAIR = """
import numpy as np

def load(rest=0):
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 2)), rng.normal(size=40), rng.exponential(size=40 - rest)
"""


def test_a_loader_gives_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weighted.py").write_text(PAIR)
    monkeypatch.chdir(tmp_path)
    raw = spec_of(tmp_path, RIDGE)
    raw["data"] = {"loader": "weighted:load", "partition_by": []}
    results = hpc_sweep.run(raw).load()
    namespace: dict[str, Any] = {}
    exec(PAIR, namespace)
    X, y, w = namespace["load"]()
    search = GridSearchCV(Ridge(), RIDGE["param_grid"], cv=3).fit(X, y, sample_weight=w)
    found = results["mean_test_score"].values
    np.testing.assert_array_equal(found, search.cv_results_["mean_test_score"])
    raw["data"]["loader_args"] = {"rest": 2}
    assert "40 in X, 40 in y, 38 in sample_weight" in refused(raw)["data.loader"]


def refused(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        prepare(load(raw))
    return {fault.path: fault.message for fault in caught.value.faults}


KNN = {"estimator": "sklearn.neighbors.KNeighborsRegressor", "param_grid": {"n_neighbors": [3, 5]}}
SGD = {"estimator": "sklearn.linear_model.SGDRegressor", "param_distributions": {"alpha": [1, 2]}}
SWAPPED = {
    "pipeline": ["sklearn.preprocessing.StandardScaler", "sklearn.svm.SVR"],
    "param_grid": {"svr": [{"sklearn.linear_model.Ridge": {}}, {KNN["estimator"]: {}}]},
}


@pytest.mark.parametrize(
    ("model", "keys", "path", "words"),
    [
        (KNN, {}, "models.0.estimator", "KNeighborsRegressor.fit takes no sample weights"),
        (SWAPPED, {}, "models.0.param_grid.svr.1", "KNeighborsRegressor.fit takes no sample"),
        (RIDGE, {"search": {"engine": "dask-ml"}}, "search.engine", "scores without weights"),
        (SGD, {"search": {"strategy": "hyperband", "cv": 1}}, "data.sample_weight", "not weighted"),
        (RIDGE, {"sample_weight": "v"}, "data.sample_weight", "no variable 'v'"),
        (RIDGE, {"sample_weight": "label"}, "data.sample_weight", "weights are numbers"),
        (RIDGE, {"sample_weight": "time.hours"}, "data.sample_weight", "hour"),
    ],
)
def test_refusals(
    tmp_path: Path, model: dict[str, Any], keys: dict[str, Any], path: str, words: str
) -> None:
    make_data(tmp_path)
    assert words in refused(spec_of(tmp_path, model, **keys))[path]
    assert not (tmp_path / "results.zarr").exists()


def test_weights_with_another_dimension_are_a_fault(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    data.assign(w=data["w"].expand_dims(level=2)).to_netcdf(tmp_path / "other.nc")
    raw = spec_of(tmp_path, RIDGE, store=str(tmp_path / "other.nc"))
    assert "'w' has level besides" in refused(raw)["data.sample_weight"]


def test_weights_are_of_the_digest(tmp_path: Path) -> None:
    make_data(tmp_path)
    digests = {load(spec_of(tmp_path, RIDGE, sample_weight=w)).digest() for w in ("w", "a", None)}
    assert len(digests) == 3


def test_a_table_and_missing_values_that_are_kept(tmp_path: Path) -> None:
    """A missing weight is dropped with its sample, or is the estimator's to refuse."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "t"])
    table["station"] = np.repeat(["one", "two"], 30)
    table["count"] = rng.integers(1, 5, 60)
    table.loc[2, "count"] = None
    table.to_csv(tmp_path / "in.csv", index=False)
    data = {
        "store": str(tmp_path / "in.csv"),
        "features": "a",
        "partition_by": "station",
        "sample_weight": "count",
    }
    results = hpc_sweep.run(spec_of(tmp_path, RIDGE, **data)).load()
    assert results["n_samples"].values.tolist() == [29, 30]
    rows = table[table.station == "one"].dropna()
    search = GridSearchCV(Ridge(), RIDGE["param_grid"], cv=3)
    search.fit(rows[["a"]].to_numpy(), rows["t"].to_numpy(), sample_weight=rows["count"].to_numpy())
    found = results["mean_test_score"].sel(station="one")
    np.testing.assert_array_equal(found, search.cv_results_["mean_test_score"])
    raw = spec_of(tmp_path, RIDGE, **data, dropna=False)
    raw["output"]["store"] = str(tmp_path / "kept.zarr")
    kept = hpc_sweep.run(raw).load()
    assert "NaN" in kept["message"].values[0, 0]
    assert np.isfinite(kept["best_score"].values).tolist() == [False, True]


@pytest.mark.parametrize(
    "name", ["accuracy", "balanced_accuracy", "f1_macro", "f1", "neg_log_loss", "matthews_corrcoef"]
)
@pytest.mark.parametrize("classes", [["no", "yes"], [0, 1, 2]])
def test_scores_of_classifiers_are_those_of_their_scorer(name: str, classes: list[Any]) -> None:
    """Of two strings, too, of which f1 knows no positive one: it raises then."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(40, 3)), np.array(classes)[rng.integers(len(classes), size=40)]
    fitted, scorer = (
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
        get_scorer(name),
    )
    try:
        expected = scorer(fitted, X, y)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            score(scorer, fitted, X, y, None)
    else:
        assert score(scorer, fitted, X, y, None) == expected
    with pytest.raises(AttributeError, match="classes_"):  # not fitted, says the scorer
        score(scorer, LogisticRegression(), X, y, None)
