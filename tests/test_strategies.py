"""Strategies: scikit-learn's candidates and numbers, the same in every unit, batch and run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Spec, hpc_sweep, small_spec
from scipy.stats import loguniform, randint
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    HalvingGridSearchCV,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
)
from sklearn.tree import DecisionTreeRegressor

import hpc_sweep as package
from hpc_sweep.errors import SpecError
from hpc_sweep.prepare import prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.strategies import draw
from hpc_sweep.sweep import execute
from hpc_sweep.work import open_bench

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


def test_a_larger_n_iter_is_another_spec(ours: Spec) -> None:
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
