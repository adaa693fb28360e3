"""Strategies: scikit-learn's candidates and numbers, the same in every unit, batch and run."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pytest
import xarray as xr
from builders import make_store
from conftest import Spec, equal_stores, hpc_sweep, small_spec, start_run, wait_for_units
from scipy.stats import loguniform, randint
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
    cross_val_score,
)
from sklearn.tree import DecisionTreeRegressor

import hpc_sweep as package
from hpc_sweep.candidates import plain_text
from hpc_sweep.choices import DONE, FAILED, Strategy
from hpc_sweep.errors import ClusterError, SpecError
from hpc_sweep.keeping import verify
from hpc_sweep.plan import Unit
from hpc_sweep.prepare import prepare
from hpc_sweep.results import best_rows, open_results
from hpc_sweep.search import Task
from hpc_sweep.spec import SweepSpec, load_spec
from hpc_sweep.store import Part, PartName, Store, fold, read_events, run_folder, write_part
from hpc_sweep.strategies import STRATEGIES, Unsearchable, draw
from hpc_sweep.sweep import execute
from hpc_sweep.work import open_bench
from hpc_sweep.work.evaluation import without_fits
from hpc_sweep.work.outcomes import part_of
from hpc_sweep.work.remains import Loss
from hpc_sweep.work.tasks import check_strategy

LOGUNIFORM = {"scipy.stats.loguniform": [1e-3, 1e3]}
RIDGE = "sklearn.linear_model.Ridge"
TREE = "sklearn.tree.DecisionTreeRegressor"
DEPTHS = {"max_depth": [1, 2, 3, 5, 8], "min_samples_leaf": [1, 3]}


@pytest.fixture
def ours(data: Path, tmp_path: Path) -> Spec:
    """Return a spec without models and search section."""
    spec = small_spec(data, tmp_path / "results.zarr")
    spec["search"] = {"cv": 3, "scoring": "r2", "seed": 5}
    spec["models"] = []
    return spec


def drawn(spec: Spec) -> list[dict[str, Any]]:
    """Return the parameters of the candidates that a spec has."""
    return [dict(candidate.params) for candidate in draw(load_spec(spec)).candidates]


def faults(spec: Spec) -> dict[str, str]:
    """Return what is wrong with a spec, by key."""
    with pytest.raises(SpecError) as caught:
        prepare(load_spec(spec))
    return {fault.path: fault.message for fault in caught.value.faults}


def pixels(results: xr.Dataset, data: Path) -> list[tuple[xr.Dataset, Any, Any]]:
    """Return some finished partitions with their arrays."""
    source = xr.open_zarr(data, chunks=None, consolidated=False).load()
    found = []
    for row, column in ((0, 3), (1, 1), (2, 6), (4, 4), (5, 7)):
        place = {"latitude": row, "longitude": column}
        pixel = source.isel(place)
        X = np.stack([pixel[n].values for n in ("wet", "green", "hour")], axis=1).astype(float)
        y = pixel["slope"].values.astype(float)
        kept = ~np.isnan(X).any(axis=1) & ~np.isnan(y)
        found.append((results.isel(place), X[kept], y[kept]))
    return found


# random


def randomly(spec: Spec, space: Any, n_iter: int = 6, estimator: Any = RIDGE) -> Spec:
    spec["models"] = [{"estimator": estimator, "param_distributions": space}]
    spec["search"] |= {"strategy": "random", "n_iter": n_iter}
    return spec


MIXED = {"alpha": LOGUNIFORM, "fit_intercept": [True, False]}


def test_random_numbers_are_those_of_scikit_learn(ours: Spec, data: Path) -> None:
    results = package.run(randomly(ours, MIXED)).load()
    space = {"alpha": loguniform(1e-3, 1e3), "fit_intercept": [True, False]}
    search = RandomizedSearchCV(Ridge(), space, n_iter=6, cv=3, scoring="r2", random_state=5)
    for found, X, y in pixels(results, data):
        expected = search.fit(X, y).cv_results_
        np.testing.assert_array_equal(found["param_alpha"], list(expected["param_alpha"]))
        for name in ("mean_test_score", "rank_test_score"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)
        assert found["best_index"] == search.best_index_
        assert found["best_param_alpha"] == search.best_params_["alpha"]


def test_candidates_of_a_store_are_not_drawn_again(
    ours: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of SciPy may draw others."""
    outcome = execute(load_spec(randomly(ours, MIXED)))
    before = drawn(ours)

    def draws(*arguments: Any, **more: Any) -> Any:
        raise AssertionError("drawn")

    monkeypatch.setattr("hpc_sweep.strategies.random.build_spaces", draws)
    store = type(outcome.store).open(outcome.store.path)
    assert [dict(candidate.params) for candidate in store.candidates] == before
    (model,) = [package.load_model(store.path, latitude=59.0, longitude=-0.25)]
    best = int(store.dataset()["best_index"].sel(latitude=59.0, longitude=-0.25))
    assert model.alpha == before[best]["alpha"]


@pytest.mark.parametrize(
    "space",
    [
        MIXED,
        {"alpha": LOGUNIFORM},
        [{"alpha": LOGUNIFORM}, {"solver": ["svd", "lsqr"]}],
        {"alpha": [1, 2, 3, 4, 5, 6, 7, 8, 9], "tol": [1e-4, 1e-3]},
    ],
)
@pytest.mark.parametrize("fewer", [1, 2, 5])
def test_more_draws_begin_with_the_same(ours: Spec, space: Any, fewer: int) -> None:
    first = drawn(randomly(ours, space, fewer))
    assert drawn(randomly(ours, space, 12))[: len(first)] == first
    assert drawn(randomly(ours, space, 12)) == drawn(randomly(ours, space, 12))


def test_another_seed_draws_others(ours: Spec) -> None:
    first = drawn(randomly(ours, MIXED))
    for seed in (6, 2**32 + 5, 2**63 - 1):
        ours["search"]["seed"] = seed
        other = drawn(ours)
        assert len(other) == 6
        assert all(params not in first for params in other)


def test_lists_are_drawn_without_replacement_until_all_are(ours: Spec) -> None:
    space = {"alpha": [1, 2, 3], "tol": [1e-4, 1e-3]}
    assert len(drawn(randomly(ours, space, 4))) == 4
    found = drawn(randomly(ours, space, 1000))
    assert len(found) == 6
    assert len({json.dumps(params) for params in found}) == 6


def test_what_is_drawn_twice_is_one_candidate(ours: Spec) -> None:
    space = {"max_depth": {"scipy.stats.randint": [1, 4]}}
    sampler = ParameterSampler({"max_depth": randint(1, 4)}, 30, random_state=5)
    expected = list(dict.fromkeys(params["max_depth"] for params in sampler))
    assert [params["max_depth"] for params in drawn(randomly(ours, space, 30, TREE))] == expected
    assert len(expected) == 3


def test_values_drawn_are_json(ours: Spec) -> None:
    space = {"max_depth": {"scipy.stats.randint": {"low": 1, "high": 9}}}
    space["min_impurity_decrease"] = {"scipy.stats.uniform": None}
    for params in drawn(randomly(ours, space, 5, TREE)):
        assert type(params["max_depth"]) is int
        assert type(params["min_impurity_decrease"]) is float


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scipy.stats.logunifrm": [1, 2]}, "did you mean 'loguniform'"),
        ({"loguniform": [1, 2]}, "did you mean 'scipy.stats.loguniform'?"),
        ({"scipy.stats.loguniform": [1]}, "does not take [1]: .*missing"),
        ({"scipy.stats.loguniform": {"low": 1}}, "does not take {'low': 1}"),
        ({"scipy.stats.loguniform": [10, 1]}, "cannot be drawn from: Domain error"),
        ({"os.system": ["touch {}"]}, "'os.system' is no distribution"),
        ({"scipy.stats.multivariate_normal": [[0, 0]]}, "not a number"),
        ({"no_such_package.x": []}, "cannot be imported"),
    ],
)
def test_wrong_distributions(
    ours: Spec, tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    trace = tmp_path / "called"
    values = json.loads(json.dumps(values).replace("{}", str(trace)))
    found = faults(randomly(ours, {"alpha": values, "alhpa": [1]}))
    assert set(found) == {f"models.0.param_distributions.{name}" for name in ("alpha", "alhpa")}
    assert all(part in found["models.0.param_distributions.alpha"] for part in words.split(".*"))
    assert "did you mean 'alpha'?" in found["models.0.param_distributions.alhpa"]
    assert not trace.exists()


def test_a_grid_in_place_of_distributions(ours: Spec) -> None:
    ours["models"] = [{"estimator": RIDGE, "param_grid": {"alpha": [1]}}]
    ours["search"]["strategy"] = "random"
    assert "param_distributions" in faults(ours)["models.0.param_grid"]
    ours["models"] = [{"estimator": RIDGE, "param_distributions": {"alpha": [1]}}]
    ours["search"]["strategy"] = "grid"
    assert "param_grid" in faults(ours)["models.0.param_distributions"]


@pytest.mark.parametrize(
    ("strategy", "key", "words"),
    [
        ("grid", "n_iter", "it is for random"),
        ("optuna", "factor", "it is for halving"),
        ("halving", "n_trails", "known here: strategy, cv"),
        (
            "rnadom",
            "strategy",
            "one of grid, random, halving, halving_random, optuna, incremental, hyperband; "
            "did you mean 'random'?",
        ),
    ],
)
def test_keys_of_another_strategy(ours: Spec, strategy: str, key: str, words: str) -> None:
    ours["models"] = [{"estimator": RIDGE}]
    ours["search"] |= {key: 5, "strategy": strategy}
    assert words in faults(ours)[f"search.{key}"]


def test_a_larger_n_iter_is_another_digest(ours: Spec) -> None:
    assert load_spec(randomly(ours, MIXED, 5)).digest() != load_spec(randomly(ours, MIXED)).digest()


def test_plan_of_a_random_search(ours: Spec, tmp_path: Path) -> None:
    ours = randomly(ours, MIXED)
    ours["models"].append({"estimator": TREE})
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(ours))
    text = hpc_sweep("plan", file).stdout
    assert "candidates: 7 (ridge 6, decisiontreeregressor 1)" in text
    facts = json.loads(hpc_sweep("plan", file, "--json").stdout)
    assert (facts["candidates"], facts["fits"], facts["strategy"]) == (7, 48 * 7 * 3, "random")


# halving


def halving(spec: Spec, models: list[Any], **search: Any) -> Spec:
    spec["models"] = models
    spec["search"] |= {"strategy": "halving", **search}
    return spec


FOREST = {"sklearn.ensemble.RandomForestRegressor": {"random_state": 1}}
GRIDS: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "samples": (TREE, DecisionTreeRegressor(random_state=0), DEPTHS, {}),
    "smallest": (
        TREE,
        DecisionTreeRegressor(random_state=0),
        DEPTHS,
        {"min_resources": "smallest"},
    ),
    "aggressive": (
        TREE,
        DecisionTreeRegressor(random_state=0),
        DEPTHS,
        {"factor": 2, "min_resources": 20, "max_resources": 45, "aggressive_elimination": True},
    ),
    "ties": (
        TREE,
        DecisionTreeRegressor(random_state=0),
        {"max_depth": [40, 1, 30, 31, 32, 2, 33]},
        {"factor": 2},
    ),
    "fraction": (RIDGE, Ridge(), {"alpha": [0.1, 1, 10, 100, 1000]}, {"factor": 1.5}),
    "trees": (
        FOREST,
        RandomForestRegressor(random_state=1),
        {"max_depth": [1, 2, 3, 4]},
        {"factor": 2, "resource": "n_estimators", "max_resources": 8, "min_resources": 2},
    ),
    "one": (RIDGE, Ridge(), {"alpha": [1.0]}, {}),
}


@pytest.mark.parametrize("case", GRIDS)
def test_halving_numbers_are_those_of_scikit_learn(ours: Spec, data: Path, case: str) -> None:
    estimator, made, grid, search = GRIDS[case]
    if estimator == TREE:
        estimator = {TREE: {"random_state": 0}}
    spec = halving(ours, [{"estimator": estimator, "param_grid": grid}], **search)
    outcome = execute(load_spec(spec))
    results = outcome.store.dataset().load()
    bench = open_bench(str(outcome.store.path), load_spec(spec).model_dump_json())
    for found, X, y in pixels(results, data):
        place = [int((results[d] == found[d]).values.argmax()) for d in ("latitude", "longitude")]
        seed = bench.seed(np.array(place))
        oracle = HalvingGridSearchCV(made, grid, cv=3, scoring="r2", random_state=seed, **search)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one test sample there is no R²
            oracle.fit(X, y)
        compare(found, oracle, list(ParameterGrid(grid)), exact=estimator != RIDGE)


def test_halving_of_drawn_candidates(ours: Spec, data: Path) -> None:
    """They are scikit-learn's of the sweep's seed; it subsamples with the partition's."""
    space = {"max_depth": {"scipy.stats.randint": [1, 9]}, "min_samples_leaf": [1, 2, 5]}
    tree = {TREE: {"random_state": 0}}
    ours["models"] = [{"estimator": tree, "param_distributions": space}]
    ours["search"] |= {"strategy": "halving_random", "n_candidates": 7, "factor": 2, "seed": 5}
    outcome = execute(load_spec(ours))
    results = outcome.store.dataset().load()
    bench = open_bench(str(outcome.store.path), load_spec(ours).model_dump_json())
    candidates = [dict(candidate.params) for candidate in outcome.store.candidates]
    model = DecisionTreeRegressor(random_state=0)
    space["max_depth"] = randint(1, 9)
    random = HalvingRandomSearchCV(model, space, n_candidates=7, factor=2, random_state=5)
    for found, X, y in pixels(results, data):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one test sample there is no R²
            random.fit(X, y)
        assert random.cv_results_["params"][: random.n_candidates_[0]] == candidates
        place = [int((results[d] == found[d]).values.argmax()) for d in ("latitude", "longitude")]
        seed = bench.seed(np.array(place))
        lists = [{name: [value] for name, value in params.items()} for params in candidates]
        oracle = HalvingGridSearchCV(
            model, lists, cv=3, scoring="r2", factor=2, random_state=seed, min_resources="smallest"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one test sample there is no R²
            oracle.fit(X, y)
        compare(found, oracle, candidates, exact=True)


def compare(found: xr.Dataset, oracle: Any, grid: list[Any], exact: bool) -> None:
    """Compare one partition with scikit-learn's halving search."""
    expected = oracle.cv_results_
    count = len(oracle.n_resources_)
    assert found["n_resources"].values[:count].tolist() == oracle.n_resources_
    assert (found["n_resources"].values[count:] == -1).all()
    resource = {oracle.resource}
    seen = np.zeros(found["mean_test_score"].shape, dtype=bool)
    for row, params in enumerate(expected["params"]):
        plain = {name: value for name, value in params.items() if name not in resource}
        candidate, iteration = grid.index(plain), int(expected["iter"][row])
        seen[candidate, iteration] = True
        for name in ("mean_test_score", "std_test_score"):
            ours, theirs = found[name].values[candidate, iteration], expected[name][row]
            np.testing.assert_allclose(
                ours, theirs, rtol=0 if exact else 1e-9, atol=0 if exact else 1e-9
            )
        if exact:
            ranks = found["rank_test_score"].values
            assert ranks[candidate, iteration] == expected["rank_test_score"][row]
        for split in range(3):
            ours = found["test_score"].values[candidate, iteration, split]
            theirs = expected[f"split{split}_test_score"][row]
            np.testing.assert_allclose(ours, theirs, rtol=0 if exact else 1e-9)
    iterations = np.arange(seen.shape[1])
    np.testing.assert_array_equal(seen, iterations <= found["last_iteration"].values[:, None])
    for name, absent in (("mean_test_score", np.nan), ("rank_test_score", -1)):
        np.testing.assert_array_equal(found[name].values[~seen], absent)
    best = {name: value for name, value in oracle.best_params_.items() if name not in resource}
    assert int(found["best_index"]) == grid.index(best)
    np.testing.assert_allclose(found["best_score"], oracle.best_score_, rtol=1e-9)
    for name, value in oracle.best_params_.items():
        assert found[f"best_param_{name}"] == value


@pytest.fixture
def scarce(ours: Spec, data: Path, tmp_path: Path) -> Spec:
    """Let two pixels have 2 and 14 samples."""
    source = xr.open_zarr(data, chunks=None, consolidated=False).load().drop_encoding()
    for place, count in (((1, 1), 2), ((4, 4), 14)):
        kept = np.flatnonzero(~np.isnan(source["wet"].values[place]))[:count]
        slope = np.full(source.sizes["time"], np.nan, dtype="float32")
        slope[kept] = source["slope"].values[place][kept]
        source["slope"][place] = slope
    path = tmp_path / "scarce.zarr"
    source.chunk(latitude=3, longitude=4).to_zarr(path, zarr_format=3, consolidated=False)
    ours["data"] = {**ours["data"], "store": str(path)}
    return ours


def test_too_few_samples_to_halve(scarce: Spec) -> None:
    spec = halving(scarce, [{"estimator": TREE, "param_grid": DEPTHS}], min_resources=15)
    results = package.run(spec).load()
    few, fewer = (results.isel(latitude=i, longitude=i) for i in (4, 1))
    assert (few["status"] == 2).all()
    assert str(few["message"][0].values) == (
        "the first iteration needs 15 n_samples (search.min_resources: 15), but 14 are the most "
        "there are; lower it"
    )
    assert "2 samples cannot be split" in str(fewer["message"][0].values)
    for place in (few, fewer):
        assert place["partition_status"] == 2
        assert (place["n_resources"] == -1).all()
        assert (place["last_iteration"] == -1).all()
        assert place["best_index"] == -1
    assert int((results["partition_status"] == 1).sum()) == 48 - 2 - 2


def test_more_resources_than_a_partition_has_samples(scarce: Spec) -> None:
    """There scikit-learn's search raises, when it comes to that iteration."""
    spec = halving(
        scarce,
        [{"estimator": TREE, "param_grid": DEPTHS}],
        min_resources=6,
        max_resources=40,
    )
    results = package.run(spec).load()
    few = results.isel(latitude=4, longitude=4)
    assert str(few["message"][0].values) == (
        "an iteration needs 18 samples (search.max_resources: 40), but there are 14 here; "
        "set it to auto, which is as many as a partition has"
    )
    assert int((results["partition_status"] == 1).sum()) == 48 - 2 - 2


@pytest.mark.parametrize("n_resources", [2, 3, 13, 14, 15, 16])
def test_samples_that_splits_have_not(ours: Spec, n_resources: int) -> None:
    """A little more than there are is rounded away, as in scikit-learn."""
    X, y = np.zeros((14, 1)), np.arange(14.0)
    spec = halving(ours, [{"estimator": TREE}], min_resources=n_resources, max_resources=16)
    strategy = draw(SweepSpec.model_validate(spec))
    partition = Task(X, y, {0: list(KFold(3).split(X))})
    oracle = HalvingGridSearchCV(
        DecisionTreeRegressor(),
        {},
        cv=KFold(3),
        min_resources=n_resources,
        max_resources=16,
        random_state=0,
    )
    try:
        oracle.fit(X, y)
    except ValueError:
        with pytest.raises(Unsearchable, match=r"16 samples|raise search\.min"):
            next(strategy.search(partition, 0, 1))
    else:
        request = next(strategy.search(partition, 0, 1))
        assert request.counts is not None


def test_classes_count_when_samples_are_halved(ours: Spec, data: Path, tmp_path: Path) -> None:
    """The first iteration has samples for each class, as in scikit-learn."""
    source = xr.open_zarr(data, chunks=None, consolidated=False).load().drop_encoding()
    source["slope"] = (source["slope"] > 0).where(source["slope"].notnull()).astype("float32")
    path = tmp_path / "classes.zarr"
    source.chunk(latitude=3, longitude=4).to_zarr(path, zarr_format=3, consolidated=False)
    ours["data"] = {**ours["data"], "store": str(path)}
    ours["search"]["scoring"] = "accuracy"
    kind = {"sklearn.tree.DecisionTreeClassifier": {"random_state": 0}}
    spec = halving(ours, [{"estimator": kind, "param_grid": DEPTHS}], min_resources="smallest")
    results = package.run(spec).load()
    assert int(results["n_resources"].isel(latitude=1, longitude=1, iteration=0)) == 3 * 2 * 2


def test_failed_and_eliminated_are_told_apart(ours: Spec) -> None:
    """A candidate that raises is failed; one that was eliminated is done, and absent later."""
    grid = {"max_depth": [1, 2, 3], "criterion": ["squared_error", "poisson"]}
    results = package.run(halving(ours, [{"estimator": TREE, "param_grid": grid}])).load()
    done = results.isel(latitude=2, longitude=2)
    poisson = done["param_criterion"].values == "poisson"  # it refuses a negative target
    assert (done["status"].values == np.where(poisson, 2, 1)).all()
    assert all(
        str(text).startswith("iteration 0: split 0: ") for text in done["message"].values[poisson]
    )
    assert (done["last_iteration"].values[poisson] == 0).all()
    assert done["last_iteration"].values.max() == 1
    assert int((done["last_iteration"] == 1).sum()) == 2
    ranks = done["rank_test_score"].values
    assert (ranks[poisson, 0] == 6).all()  # of 3 + 2 results; then those that failed
    assert (ranks[poisson, 1] == -1).all()


@pytest.mark.parametrize(
    ("search", "place", "words"),
    [
        (
            {"resource": "n_trees", "max_resources": 9},
            "search.resource",
            "no parameter of models.0",
        ),
        ({"resource": "max_features"}, "search.max_resources", "is needed"),
        (
            {"resource": "max_depth", "max_resources": 9},
            "models.0.param_grid.max_depth",
            "no candidate can set it",
        ),
    ],
)
def test_wrong_resources(ours: Spec, search: Spec, place: str, words: str) -> None:
    assert (
        words in faults(halving(ours, [{"estimator": TREE, "param_grid": DEPTHS}], **search))[place]
    )


# optuna

SPACE = {
    "max_depth": {"scipy.stats.randint": [1, 9]},
    "ccp_alpha": {"scipy.stats.loguniform": [1e-4, 1e-1]},
    "criterion": ["squared_error", "absolute_error"],
    "min_samples_leaf": [1, 3, 5],
}
TWO = [
    {"estimator": TREE, "param_distributions": SPACE},
    {
        "estimator": RIDGE,
        "param_distributions": {"alpha": LOGUNIFORM, "fit_intercept": [True, False]},
    },
]


def study(spec: Spec, models: list[Any], **search: Any) -> Spec:
    spec["models"] = models
    spec["search"] |= {"strategy": "optuna", "n_trials": 7, "trials_at_once": 3, **search}
    return spec


def told(found: xr.Dataset, name: str, row: int) -> Any:
    """Return a parameter of a trial as the store tells it."""
    array = found[f"param_{name}"]
    if "categories" in array.attrs:
        return json.loads(array.attrs["categories"])[int(array[row])]
    return array.values[row].item()


def test_trials_are_those_of_a_study_of_ones_own(ours: Spec, data: Path) -> None:
    """Ask, evaluate with scikit-learn and tell, by hand."""
    tree = {TREE: {"random_state": 0}}
    spec = study(ours, [{"estimator": tree, "param_distributions": SPACE}], n_trials=14)
    outcome = execute(load_spec(spec))
    results = outcome.store.dataset().load()
    bench = open_bench(str(outcome.store.path), load_spec(spec).model_dump_json())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for found, X, y in pixels(results, data):
        place = [int((results[d] == found[d]).values.argmax()) for d in ("latitude", "longitude")]
        sampler = optuna.samplers.TPESampler(seed=bench.seed(np.array(place)))
        own = optuna.create_study(direction="maximize", sampler=sampler)
        for start in range(0, 14, 3):
            trials = [own.ask() for _ in range(start, min(start + 3, 14))]
            for trial in trials:
                trial.suggest_float("ccp_alpha", 1e-4, 1e-1, log=True)
                trial.suggest_categorical("criterion", (0, 1))
                trial.suggest_int("max_depth", 1, 8)
                trial.suggest_categorical("min_samples_leaf", (0, 1, 2))
            for row, trial in enumerate(trials, start):
                params = dict(trial.params)
                for name in ("criterion", "min_samples_leaf"):
                    params[name] = SPACE[name][params[name]]  # type: ignore[index]
                assert {name: told(found, name, row) for name in params} == params
                model = DecisionTreeRegressor(random_state=0, **params)
                scores = cross_val_score(model, X, y, cv=3, scoring="r2")
                np.testing.assert_array_equal(found["test_score"][row], scores)
                own.tell(trial, scores.mean())
        assert found["best_score"] == own.best_value
        assert found["best_index"] == own.best_trial.number


def test_categories_are_codes_with_meanings(ours: Spec) -> None:
    results = package.run(study(ours, TWO)).load()
    assert "candidate" not in results.dims
    assert results["test_score"].dims == ("latitude", "longitude", "trial", "split")
    codes = results["param_criterion"]
    assert codes.attrs["flag_meanings"] == "squared_error absolute_error"
    of_tree = (results["model"] == 0).values
    assert results["model"].attrs["flag_meanings"] == "decisiontreeregressor ridge"
    done = (results["status"] == 1).values
    assert (codes.values >= 0)[done].tolist() == of_tree[done].tolist()
    for name, theirs in (("max_depth", of_tree), ("alpha", ~of_tree & done)):
        assert (~np.isnan(results[f"param_{name}"].values) == theirs).all()
    assert set(np.unique(results["param_fit_intercept"].values)) == {-1, 0, 1}
    best = results.isel(latitude=2, longitude=5)
    row = int(best["best_index"])
    model = ["decisiontreeregressor", "ridge"][int(best["model"][row])]
    assert str(best["best_model"].values) == model
    if model == "ridge":
        assert best["best_param_alpha"] == best["param_alpha"][row]
        assert str(best["best_param_fit_intercept"].values) in ("true", "false")
        assert str(best["best_param_criterion"].values) == ""
    else:
        assert np.isnan(best["best_param_alpha"])


def test_failed_trials_are_told_as_failed(ours: Spec) -> None:
    space = {
        "criterion": ["poisson", "squared_error"],
        "max_depth": {"scipy.stats.randint": [1, 5]},
    }
    found = package.run(study(ours, [{"estimator": TREE, "param_distributions": space}])).load()
    found = found.isel(latitude=2, longitude=2)
    assert (found["status"].values == np.where(found["param_criterion"] == 0, 2, 1)).all()
    assert (found["status"] == 2).any()
    assert found["partition_status"] == 1


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ("tpee", "did you mean 'tpe'?"),
        ({"tpe": {"n_startup": 3}}, "did you mean 'n_startup_trials'?"),
        ({"tpe": {"seed": 3}}, "search.seed"),
        ({"tpe": {"n_startup_trials": "many"}}, "cannot search here: TypeError"),
        ("optuna.samplers.TpeSample", "did you mean 'TPESampler'?"),
        ("sklearn.linear_model.Ridge", "is no sampler class"),
        ({"optuna.samplers.PartialFixedSampler": {}}, "takes no seed"),
    ],
)
def test_wrong_samplers(ours: Spec, sampler: Any, words: str) -> None:
    assert words in faults(study(ours, TWO, sampler=sampler))["search.sampler"]


def test_a_sampler_that_lacks_its_library(ours: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    words = faults(study(ours, TWO, sampler="gp"))["search.sampler"]
    assert "GPSampler cannot search here: " in words
    assert "torch" in words


def test_without_optuna(ours: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'hpc-sweep[optuna]'" in faults(study(ours, TWO))["search.strategy"]


def test_a_worker_without_optuna_ends_the_run(ours: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    text = load_spec(study(ours, TWO, n_trials=6)).model_dump_json()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "optuna", None)
        with pytest.raises(ClusterError, match=r"optuna cannot be imported.* driver's environment"):
            check_strategy(text)
    check_strategy(text)


def test_models_are_loaded_without_optuna(ours: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    store = execute(load_spec(study(ours, TWO, n_trials=2))).store.path
    monkeypatch.setitem(sys.modules, "optuna", None)
    open_bench.cache_clear()
    assert package.load_model(store, latitude=59.0, longitude=-0.25) is not None
    assert next(best_rows(open_results(store)))["params"]


@pytest.mark.parametrize(
    ("models", "place", "words"),
    [
        ({"max_depth": {"scipy.stats.norm": [3, 1]}}, "max_depth", "none that Optuna has"),
        ({"ccp_alpha": {"scipy.stats.loguniform": [0.1, 1, 5]}}, "ccp_alpha", "leave loc out"),
        ({"ccp_alpha": {"scipy.stats.loguniform": [1, 0.1]}}, "ccp_alpha", "no lower and"),
        ({"max_depth": {"scipy.stats.poisson": [3]}}, "max_depth", "none that Optuna has"),
        ({"max_depth": {"optuna.distributions.IntDistribution": [9, 1]}}, "max_depth", "not take"),
        ([{"max_depth": [1]}, {"max_depth": [None, 2]}], "max_depth", "has other values here"),
        ({"max_dept": [1]}, "max_dept", "did you mean 'max_depth'?"),
        ({}, "", "nothing to choose"),
    ],
)
def test_wrong_spaces(ours: Spec, models: Any, place: str, words: str) -> None:
    found = faults(study(ours, [{"estimator": TREE, "param_distributions": models}]))
    key = ".".join(["models.0.param_distributions", *([place] if place else [])])
    assert words in found[key]


@pytest.mark.parametrize(
    "sampler", ["random", "cmaes", "qmc", "nsgaii", {"tpe": {"multivariate": True}}]
)
def test_other_samplers(ours: Spec, sampler: Any) -> None:
    space = {
        "alpha": {"optuna.distributions.FloatDistribution": {"low": 1e-3, "high": 9, "log": True}}
    }
    spec = study(ours, [{"estimator": RIDGE, "param_distributions": space}], sampler=sampler)
    results = package.run(spec).load()
    drawn = results["param_alpha"].values[(results["status"] == 1).values]
    assert ((drawn >= 1e-3) & (drawn <= 9)).all()
    assert len(np.unique(results["param_alpha"].values[1:, :, 1])) > 20 or sampler == "qmc"


# what all strategies promise


def test_the_schema_tells_strategies_apart() -> None:
    """An editor takes exactly one of them: only a grid may go unnamed."""
    schema = SweepSpec.model_json_schema()
    kinds = [entry["$ref"].rpartition("/")[2] for entry in schema["properties"]["search"]["oneOf"]]
    needs = {kind: "strategy" in schema["$defs"][kind].get("required", ()) for kind in kinds}
    grid = needs.pop("GridSpec")
    assert not grid
    assert all(needs.values())
    named = {schema["$defs"][kind]["properties"]["strategy"]["const"] for kind in kinds}
    assert named == set(STRATEGIES) == set(get_args(Strategy))


ALL: dict[str, Any] = {
    "random": lambda spec: randomly(spec, SPACE, estimator=TREE),
    "halving": lambda spec: halving(spec, [{"estimator": TREE, "param_grid": DEPTHS}], factor=2),
    "halving_random": lambda spec: {
        **spec,
        "models": [{"estimator": TREE, "param_distributions": SPACE}],
        "search": {**spec["search"], "strategy": "halving_random", "n_candidates": 5},
    },
    "halving-trees": lambda spec: halving(
        spec,
        [
            {
                "estimator": "sklearn.ensemble.RandomForestRegressor",
                "param_grid": {"max_depth": [1, 2, 3]},
            }
        ],
        **{"factor": 2, "resource": "n_estimators", "max_resources": 4},
    ),
    "optuna": lambda spec: study(spec, TWO),
}


@pytest.fixture(params=ALL)
def searched(request: pytest.FixtureRequest, ours: Spec) -> Spec:
    """Return a spec of each strategy; random states are left open."""
    made: Spec = ALL[request.param](ours)
    return made


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Return the stores of `swept`, by strategy."""
    return {}


@pytest.fixture
def swept(
    searched: Spec,
    request: pytest.FixtureRequest,
    made: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the store of the sweep made in one go; read only."""
    name = request.node.callspec.params["searched"]
    if name not in made:
        store = tmp_path_factory.mktemp("swept") / "whole.zarr"
        execute(load_spec({**searched, "output": {"store": str(store)}}))
        made[name] = store
    return made[name]


def test_the_same_in_any_unit_and_batch(
    searched: Spec, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_sweep.sweep.execution.UNIT_SECONDS", 0.0)  # one partition a part
    searched["cluster"] = {**searched["cluster"], "workers": 1}
    outcome = execute(load_spec(searched))
    assert outcome.progress is not None
    assert outcome.progress.units == 48
    equal_stores(outcome.store.path, swept)


@pytest.mark.parametrize("searched", ["halving-trees", "optuna"], indirect=True)
def test_the_same_after_a_kill(
    searched: Spec, swept: Path, write_spec: Callable[[Spec], Path]
) -> None:
    file, store = write_spec(searched), Path(searched["output"]["store"])
    driver = start_run(file, "--set", "cluster.workers=1")
    wait_for_units(store, 2, driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    done = sum(event["event"] == "unit_done" for event in read_events(run_folder(store).events))
    assert execute(load_spec(searched)).progress is not None
    started = [e for e in read_events(run_folder(store).events) if e["event"] == "run_started"]
    assert started[-1]["cells_done"] > 0 or done == 0
    equal_stores(store, swept)


def test_a_sweep_is_planned_shown_and_loaded(
    searched: Spec, swept: Path, data: Path, write_spec: Callable[[Spec], Path]
) -> None:
    store = str(swept)
    facts = json.loads(hpc_sweep("plan", write_spec(searched), "--json").stdout)
    assert facts["strategy"] == searched["search"]["strategy"]
    file = write_spec({**searched, "output": {"store": store}})
    again = hpc_sweep("run", file)
    assert again.returncode == 0, again.stderr
    assert "nothing to do: 46 done, 2 empty of 48 partitions" in again.stdout
    (status,) = json.loads(hpc_sweep("status", store, "--json").stdout)
    assert status["fits"] == status["fits_done"] == facts["fits"]
    rows = json.loads(hpc_sweep("results", store, "--format", "json").stdout)
    results = xr.open_zarr(store, chunks=None).load()
    files = [path for path in Path(store).rglob("*") if path.is_file()]
    assert len(files) <= facts["files"]
    assert verify(store).findings == []
    models = open_results(store).sweep.models().set_index("model")
    assert models["wins"].to_dict() == {
        name: int((results["best_model"] == name).sum()) for name in models.index
    }
    assert set(open_results(store).sweep.failures()["status"]) <= {"empty", "failed"}
    for number, (found, X, y) in enumerate(pixels(results, data)):
        labels = {name: float(found[name]) for name in ("latitude", "longitude")}
        (row,) = [row for row in rows if {name: row[name] for name in labels} == labels]
        assert row["model"] == str(found["best_model"].values)
        assert row["score"] == found["best_score"]
        for name, value in row["params"].items():
            shown = found[f"best_param_{name}"].item()
            assert shown == (value if isinstance(shown, float) else plain_text(value))
        if number % 5:
            continue
        model = package.load_model(store, **labels)
        for name, value in row["params"].items():
            assert model.get_params()[name] == value
            assert type(model.get_params()[name]) is type(value)
        assert model.score(X, y) > -1


def test_a_partition_that_cannot_be_read_is_given_up_whole(searched: Spec, swept: Path) -> None:
    """Nothing is fitted here."""
    store = Store.open(swept)
    unit = Unit((0, 0), 5, 6, 0, store.strategy.n_columns)
    bench = open_bench(str(swept), load_spec(searched).model_dump_json())
    part = part_of(bench, [without_fits(bench, unit, Loss(2, "crashes"))])
    status = part.status
    assert status.shape == (1, store.strategy.n_rows)
    assert (status == 2).all()
    assert part.scores["score"].shape[1:-1] == tuple(store.strategy.lengths.values())


@pytest.mark.parametrize("late_first", [True, False])
def test_a_late_failure_lowers_nothing_of_a_partition(tmp_path: Path, late_first: bool) -> None:
    """What belongs together is taken from one part: scores, resources, the best."""
    model = {"estimator": RIDGE, "param_grid": {"alpha": [1, 2, 3, 4]}}
    store = make_store(tmp_path, (2,), (2,), models=[model], strategy="halving", factor=2)
    lengths = (*store.strategy.lengths.values(), store.header.n_splits)
    rng = np.random.default_rng(0)

    def left(start: int, stop: int, status: int, best: int) -> PartName:
        count = stop - start
        times = rng.random((count, *lengths)).astype("float32")
        more = {
            "n_resources": np.tile([6, 12, -1], (count, 1)),
            "last_iteration": np.tile(np.array([0, 1, 0, 1], dtype="int32"), (count, 1)),
            "best_index": np.full(count, best),
            "best_score": np.full(count, 0.5 if best >= 0 else np.nan),
        }
        if best < 0:
            more["n_resources"][:], more["last_iteration"][:] = -1, -1
        part = Part(
            {"score": rng.random((count, *lengths)) if best >= 0 else times * np.nan},
            times,
            times,
            np.full((count, 4), status, dtype="int8"),
            np.full(count, 20 if best >= 0 else 0),
            np.full(count, 3 if best >= 0 else 0),
            {},
            more,
        )
        unit = Unit((0,), start, stop, 0, 1)
        return write_part(store.run.parts, store.header.id, unit, part)

    names = [left(0, 1, FAILED, -1), left(0, 2, DONE, 3)]
    fold(store, (0,), names if late_first else names[::-1])
    results = store.dataset().load()
    # the invented best score is no mean of the candidate that was chosen
    told = [finding.fault for finding in verify(store.path).findings]
    assert [fault for fault in told if "none of the means of the best" in fault]
    assert results["n_resources"].values.tolist() == [[6, 12, -1]] * 2
    assert results["best_index"].values.tolist() == [3, 3]
    assert results["best_param_alpha"].values.tolist() == [4, 4]
    assert (results["status"] == DONE).all()
    assert (results["rank_test_score"].values[:, 0, 1:] == -1).all()
    assert (results["rank_test_score"].values[:, 1, 1] > 0).all()
