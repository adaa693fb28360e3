"""Coefficients in the units of the features are those of the refitted best models."""

from __future__ import annotations

import importlib
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import is_classifier
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import get_scorer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVR
from yearly import LASSO, SHAPE, TREE, InProcess, Spec, in_process, write, yearly_spec, years_data

import hpc_sweep
from hpc_sweep.choices import DONE, FAILED
from hpc_sweep.linear import LINEAR
from hpc_sweep.plan import Unit
from hpc_sweep.search import Evaluator, Model, Problem, Setting, Task, affine, coefficients_at_once
from hpc_sweep.store import Ledger, PartName, fold, set_pending, write_part
from hpc_sweep.store.parts import read_part

RIDGE = {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1, 10]}}
SCALED = {
    "name": "scaled",
    "pipeline": ["sklearn.preprocessing.StandardScaler", "sklearn.linear_model.LinearRegression"],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(years_data(), tmp_path_factory.mktemp("years") / "data.zarr")


@pytest.fixture
def spec(store: str, tmp_path: Path) -> Spec:
    spec = yearly_spec(store, tmp_path / "results.zarr")
    spec["search"]["cv"] = 3
    return spec


def samples(n: int = 60, n_features: int = 4) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    X = rng.normal([5, -3, 0.1, 200], [1, 10, 0.01, 30], (n, n_features))
    return X, X @ [1.0, 0.2, -30.0, 0.01] + rng.normal(0, 0.1, n) - 4


def made(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)()


@pytest.mark.parametrize("path", sorted(LINEAR))
@pytest.mark.filterwarnings("ignore")
def test_every_linear_model_is_affine(path: str) -> None:
    X, y = samples()
    estimator = make_pipeline(StandardScaler(), made(path))
    if is_classifier(estimator):
        y = y > np.median(y)
    several = "MultiTask" in path
    estimator.fit(X, np.stack([y, -2 * y], axis=1) if several else y)
    found = affine(estimator, 4, 2 if several else 1)
    assert found is not None
    expected = (estimator.decision_function if is_classifier(estimator) else estimator.predict)(X)
    np.testing.assert_allclose(
        X @ found[0].T + found[1], expected.reshape(len(X), -1), rtol=1e-9, atol=1e-9
    )


STEPS = [
    [],
    ["passthrough", None],
    [StandardScaler(with_mean=False)],
    [StandardScaler(with_std=False)],
    [RobustScaler()],
    [RobustScaler(with_centering=False), MaxAbsScaler()],
    [MinMaxScaler(feature_range=(-2, 5)), PCA(2)],
    [TruncatedSVD(2)],
    [SelectKBest(f_regression, k=2), make_pipeline(StandardScaler(), PCA(1))],
]


@pytest.mark.parametrize("steps", STEPS)
def test_every_known_step(steps: list[Any]) -> None:
    X, y = samples()
    named = [(str(number), step) for number, step in enumerate([*steps, Ridge()])]
    estimator = Pipeline(named).fit(X, y)
    found = affine(estimator, 4, 1)
    assert found is not None
    np.testing.assert_allclose(X @ found[0][0] + found[1], estimator.predict(X), rtol=1e-9)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(PolynomialFeatures(), Ridge()),
        make_pipeline(MinMaxScaler(clip=True), Ridge()),
        make_pipeline(PCA(2, whiten=True), Ridge()),
        make_pipeline(StandardScaler(), SVR()),
        type("Ridge", (Ridge,), {"__module__": "mine"})(),
    ],
    ids=str,
)
def test_others_have_none(estimator: Any) -> None:
    assert affine(estimator.fit(*samples()), 4, 1) is None


def test_three_classes_have_none() -> None:
    X, y = samples()
    classes = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    assert (
        affine(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, classes), 4, 1) is None
    )


FORMS = [
    Ridge(0.5),
    Ridge(3.0, fit_intercept=False),
    LinearRegression(),
    make_pipeline(StandardScaler(), Ridge(2.0)),
    make_pipeline(StandardScaler(), Ridge(2.0, fit_intercept=False)),
    make_pipeline(StandardScaler(), PCA(2), Ridge(0.1)),
    make_pipeline(PCA(3), LinearRegression()),
]


@pytest.mark.parametrize("joint", [False, True])
def test_solved_together_as_fitted(joint: bool) -> None:
    """Of several forms and penalties, and of partitions of several lengths, at once."""
    problems = []
    for number, estimator in enumerate([*FORMS, *FORMS]):
        X, y = samples(40 + number)
        problems.append(Problem(estimator, X, np.stack([y, X[:, 0] - y], axis=1) if joint else y))
    solved = coefficients_at_once(problems)
    assert sum(each is not None for each in solved) >= 10
    for each, found in zip(problems, solved, strict=True):
        if found is not None:
            expected = affine(each.estimator.fit(each.X, each.y), 4, 2 if joint else 1)
            assert expected is not None
            for mine, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * abs(theirs).max())


def test_what_is_not_sound_is_not_solved() -> None:
    X, y = samples()
    twice = np.column_stack([X, X[:, 0] * (1 + 1e-12)])
    problems = [Problem(LinearRegression(), twice, y), Problem(Lasso(), X, y)]
    problems += [Problem(Ridge(), X[:5], y[:5])]
    assert coefficients_at_once(problems) == [None, None, None]
    assert coefficients_at_once([]) == []


@pytest.mark.parametrize("estimator", FORMS, ids=str)
def test_the_same_bits_of_a_search_or_alone(
    estimator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums that searches leave, of any partitions together, are those of a partition by itself."""
    lengths = (57, 60, 60, 64, 60, 3, 119)
    arrays = [samples(length, 4) for length in lengths]
    splits = {n: [(np.arange(n // 3, n), np.arange(n // 3))] for n in lengths}

    def searched(numbers: list[int]) -> list[Problem]:
        tasks = [Task(*arrays[n], {0: splits[lengths[n]]}, sums={}) for n in numbers]
        model = Model(estimator, None, get_scorer("neg_mean_squared_error"))
        Evaluator([model], [Setting(0, {})], ["score"]).evaluate(tasks)
        return [Problem(estimator, each.X, each.y, each.sums) for each in tasks]

    alone = [coefficients_at_once([Problem(estimator, *each)])[0] for each in arrays]
    assert sum(each is not None for each in alone) == len(lengths) - 1
    ways = [searched([*range(len(lengths))]), searched([6, 4, 3, 1, 2, 0]), searched([2])]
    assert all(each.sums for each in (*ways[1], *ways[2]))
    for numbers, problems in zip(
        ([*range(len(lengths))], [6, 4, 3, 1, 2, 0], [2]), ways, strict=True
    ):
        for number, found in zip(numbers, coefficients_at_once(problems), strict=True):
            expected = alone[number]
            assert (found is None) == (expected is None)
            if found is not None and expected is not None:
                assert [each.tobytes() for each in found] == [each.tobytes() for each in expected]
    monkeypatch.setattr("hpc_sweep.search.rules.whole.stacked", None)  # nothing is gathered again
    assert coefficients_at_once(problems)[0] is not None


@pytest.mark.parametrize("width", [None, 2])
def test_of_a_sweep_are_those_of_loaded_models(spec: Spec, width: int | None) -> None:
    """Whether all candidates are in one unit, or the best one is known at the end only."""
    spec["models"] = [RIDGE, SCALED, *spec["models"]]
    results = in_process(spec, width)
    assert results["coef"].dims == ("latitude", "longitude", "feature")
    assert results["feature"].values.tolist() == ["wet", "green"]
    kinds = set()
    for place in np.ndindex(*SHAPE):
        found = results.isel(latitude=place[0], longitude=place[1])
        coef, kind = found["coef"].values, str(found["best_model"].values)
        kinds.add(kind)
        if kind in ("", "decisiontreeregressor"):
            assert np.isnan(coef).all()
            assert np.isnan(found["intercept"])
            continue
        labels = {"latitude": found.latitude.item(), "longitude": found.longitude.item()}
        model = hpc_sweep.load_model(spec["output"]["store"], **labels)
        expected = affine(model, 2, 1)
        assert expected is not None
        np.testing.assert_allclose(coef, expected[0][0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found["intercept"], expected[1][0], rtol=1e-9, atol=1e-9)
    assert {"", "decisiontreeregressor"} < kinds
    assert kinds & {"ridge", "scaled", "lasso"}


def test_partitions_are_finished_before_others_are_done(spec: Spec, tmp_path: Path) -> None:
    spec["models"] = [RIDGE, *spec["models"]]
    sweep = InProcess(spec, 3)
    ledger = Ledger(sweep.store)
    for chunk in ledger.chunks:
        known: list[PartName] = []
        for position in range(sweep.store.n_partitions(chunk)):
            units = [replace(u, start=position, stop=position + 1) for u in sweep.units(chunk)]
            for unit in units:
                known.append(sweep.leave(unit))
                complete = ledger.add(known[-1])
                lacking = ledger.finishing(unit)
                assert ledger.finishing(unit) == []
            last = sweep.store.strategy.n_columns
            assert lacking == [Unit(chunk, position, position + 1, last, last)]
            assert not complete or [*ledger.complete()] == []
            known.append(sweep.leave(lacking[0], known))
            complete = ledger.add(known[-1])
        assert complete
        assert ledger.fold(chunk, fold(sweep.store, chunk, known)) == []
    assert ledger.is_complete
    spec["output"]["store"] = str(tmp_path / "whole.zarr")
    found, expected = sweep.store.dataset().load(), in_process(spec)
    for name in ("best_index", "coef", "intercept"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_retry_does_not_lose_refits(spec: Spec, tmp_path: Path) -> None:
    """What failed in one part and not in its double is no failure: nothing is set back for it."""
    spec["models"] = [RIDGE]
    sweep = InProcess(spec, 2)
    store, (chunk, *_) = sweep.store, Ledger(sweep.store).chunks
    (first, *_) = (sweep.leave(unit) for unit in reversed(sweep.units(chunk)))
    part = read_part(store.run.parts, first)
    failed = replace(part, status=np.where(part.status == DONE, FAILED, part.status))
    write_part(store.run.parts, store.header.id, first.unit, failed)
    assert not set_pending(store, [FAILED])
    ledger = Ledger.read(store)
    assert [*ledger.complete()] == [chunk]
    units = ledger.fold(chunk, fold(store, chunk, []), 9)
    assert units
    names = [sweep.leave(unit) for unit in units]
    assert ledger.fold(chunk, fold(store, chunk, names)) == []
    assert chunk in Ledger.read(store).folded
    spec["output"]["store"] = str(tmp_path / "whole.zarr")
    expected = in_process(spec).isel(latitude=slice(2), longitude=slice(2))
    found = store.dataset().load().isel(latitude=slice(2), longitude=slice(2))
    for name in ("best_index", "coef"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_several_targets_have_a_dimension(spec: Spec) -> None:
    spec["data"] |= {"target": ["slope", "wet"], "features": ["green", "late"]}
    spec["models"] = [RIDGE]
    results = in_process(spec)
    assert results["coef"].dims == ("latitude", "longitude", "output", "feature")
    assert results["intercept"].dims == ("latitude", "longitude", "output")
    assert results["output"].values.tolist() == ["slope", "wet"]
    here = results.isel(latitude=0, longitude=0)
    model = hpc_sweep.load_model(spec["output"]["store"], latitude=60.0, longitude=-1.0)
    np.testing.assert_allclose(here["coef"], model.coef_, rtol=1e-9, atol=1e-9)


def test_none_has_neither_coefficients_nor_models(spec: Spec) -> None:
    spec["models"], spec["output"]["models"] = [RIDGE], "none"
    results = in_process(spec)
    assert not {"coef", "intercept", "feature", "refit_message"} & {*results.variables}
    with pytest.raises(hpc_sweep.errors.StoreError, match=r"models: none.*best_param_"):
        hpc_sweep.load_model(spec["output"]["store"], latitude=60.0, longitude=-1.0)


@pytest.mark.parametrize(("models", "has"), [([LASSO], True), ([TREE], False)])
def test_arrays_are_there_where_a_model_is_linear(spec: Spec, models: list[str], has: bool) -> None:
    spec["models"] = [{"estimator": path} for path in models]
    assert ("coef" in InProcess(spec).store.dataset()) == has


def test_warnings_of_refits_are_not_shown(spec: Spec) -> None:
    spec["models"] = [{"estimator": {LASSO: {"max_iter": 1, "alpha": 1e-4}}}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.isnan(in_process(spec)["coef"]).all()
