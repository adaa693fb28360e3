"""Candidates: scikit-learn's order, ids made of content, values as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_sweep import candidates
from hpc_sweep.candidates import Candidate, expand, is_numeric, model_names, repeated, value_text

Model = dict[str, Any]

RIDGE = "sklearn.linear_model.Ridge"
SVR = "sklearn.svm.SVR"
SCALER = "sklearn.preprocessing.StandardScaler"


def model(estimator: Any = RIDGE, grid: Any = None, name: str | None = None) -> Model:
    return {"name": name, "estimator": estimator, "pipeline": None, "param_grid": grid or {}}


def pipeline(steps: Any, grid: Any = None) -> Model:
    return {"name": None, "estimator": None, "pipeline": steps, "param_grid": grid or {}}


def with_values(*values: Any) -> tuple[Candidate, ...]:
    return expand([model(grid={"p": list(values)})])


GRIDS = st.dictionaries(
    st.sampled_from(["alpha", "C", "svr__C", "tol", "a_b", "Z"]),
    st.lists(st.integers(0, 9) | st.text("xyz", max_size=2), min_size=1, max_size=3),
    max_size=4,
)


@given(grid=GRIDS | st.lists(GRIDS, min_size=1, max_size=3))
@settings(deadline=None)
def test_order_is_that_of_parameter_grid(grid: Any) -> None:
    from sklearn.model_selection import ParameterGrid

    assert [dict(c.params) for c in expand([model(grid=grid)])] == list(ParameterGrid(grid))


def test_models_follow_each_other() -> None:
    found = expand([model(grid={"alpha": [1, 2]}), model(SVR, {"C": [3]}), model(name="x")])
    assert [(c.model, c.model_name, dict(c.params)) for c in found] == [
        (0, "ridge", {"alpha": 1}),
        (0, "ridge", {"alpha": 2}),
        (1, "svr", {"C": 3}),
        (2, "x", {}),
    ]


def test_a_model_without_grid_is_one_candidate() -> None:
    (only,) = expand([model()])
    assert json.loads(only.json) == {"model": "ridge", "params": {}}


# ids

DESCRIBED = [
    model(grid={"alpha": [0.1, 1], "solver": ["svd", "lsqr"]}),
    pipeline({"scale": SCALER, "fit": {SVR: {"C": 1.5, "kernel": "rbf"}}}, {"fit__C": [1, 2]}),
]


def test_ids_are_the_same_in_another_process() -> None:
    code = (
        "import json, sys; from hpc_sweep.candidates import expand; "
        "print(' '.join(c.id for c in expand(json.load(sys.stdin))))"
    )
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(DESCRIBED),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.split() == [c.id for c in expand(DESCRIBED)]


def test_ids_do_not_change_between_versions() -> None:
    """A change here makes every existing store one of another spec."""
    found = expand([model(grid={"alpha": [0.1, 1]})])
    assert [c.id for c in found] == [
        "d8e8de0fa36323b3",
        "a5847ccff0e2a12c",
    ]


def test_ids_are_16_hexadecimal_digits() -> None:
    for candidate in expand(DESCRIBED):
        assert len(candidate.id) == 16
        int(candidate.id, 16)


def test_ids_do_not_depend_on_neighbours_names_or_order_of_keys() -> None:
    (alone,) = expand([model(grid={"alpha": [1], "tol": [2]})])
    among = expand([model(SVR), model(grid={"tol": [3, 2], "alpha": [1, 9]}, name="mine")])
    assert alone.id in {c.id for c in among}


@pytest.mark.parametrize(
    "other",
    [
        model(grid={"alpha": [2]}),
        model(grid={"alpha": ["1"]}),
        model(grid={"alpha": [True]}),
        model(grid={"alpha": [None]}),
        model(grid={"alpha": [[1]]}),
        model(grid={"tol": [1]}),
        model(),
        model(SVR, {"alpha": [1]}),
        model({RIDGE: {"tol": 0.1}}, {"alpha": [1]}),
        pipeline([RIDGE], {"alpha": [1]}),
    ],
)
def test_ids_depend_on_content(other: Model) -> None:
    (one,), (another,) = expand([model(grid={"alpha": [1]})]), expand([other])
    assert one.id != another.id
    assert repeated([one, another]) == []


def test_ids_depend_on_the_order_of_named_steps() -> None:
    (one,) = expand([pipeline({"a": SCALER, "b": "x.Poly", "c": RIDGE})])
    (other,) = expand([pipeline({"b": "x.Poly", "a": SCALER, "c": RIDGE})])
    assert one.id != other.id


def test_repeated_names_the_first() -> None:
    found = expand([model(grid={"alpha": [1, 2, 1]}), model(grid=[{"alpha": [2]}], name="x")])
    assert repeated(found) == [(0, 2), (1, 3)]


# names


@pytest.mark.parametrize(
    ("models", "names"),
    [
        ([model(), model(), model()], ["ridge", "ridge-2", "ridge-3"]),
        ([model(), model(), model(name="ridge-2")], ["ridge", "ridge-3", "ridge-2"]),
        ([model(), model(name="ridge")], ["ridge", "ridge-2"]),
        ([model("mine:Ridge"), model({SVR: {"C": 1}})], ["ridge", "svr"]),
        ([pipeline([SCALER, {SVR: None}]), pipeline({"a": SCALER, "b": RIDGE})], ["svr", "ridge"]),
    ],
)
def test_model_names(models: list[Model], names: list[str]) -> None:
    assert model_names(models) == names


@given(st.lists(st.sampled_from([None, "ridge", "ridge-2", "ridge-3", "a"]), max_size=7))
@settings(deadline=None)
def test_model_names_are_distinct(given_names: list[str | None]) -> None:
    names = model_names([model(name=name) for name in given_names])
    assert len(set(names)) == len(given_names)
    assert {name for name in given_names if name} <= set(names)


# values


@pytest.mark.parametrize("values", [(1, 2.5), (0,), (-1e-300, 10**30)])
def test_numbers_are_numeric(values: tuple[Any, ...]) -> None:
    assert is_numeric(with_values(*values), "p")


@pytest.mark.parametrize("other", [True, None, "1", "inf", [1], {"a": 1}])
def test_one_other_value_makes_text(other: Any) -> None:
    assert not is_numeric(with_values(1, other), "p")


def test_a_parameter_that_does_not_apply_everywhere_is_text() -> None:
    found = expand([model(grid=[{"alpha": [1]}, {"tol": [2]}])])
    assert not is_numeric(found, "alpha")
    assert [value_text(c, "alpha") for c in found] == ["1", ""]
    assert candidates.parameter_names(found) == ["alpha", "tol"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0.1, "0.1"),
        ("rbf", "rbf"),
        ("", ""),
        (True, "true"),
        (None, "null"),
        ([1, "a"], '[1, "a"]'),
        ({"b": 1, "a": None}, '{"a": null, "b": 1}'),
    ],
)
def test_value_text(value: Any, text: str) -> None:
    (found,) = with_values(value)
    assert value_text(found, "p") == text


def test_json_holds_the_exact_values() -> None:
    values = [0.1 + 0.2, 2**60 + 1, "é\n", None, True, [1, {"a": []}]]
    found = with_values(*values)
    assert [json.loads(c.json)["params"]["p"] for c in found] == values
    assert all(json.loads(c.json)["model"] == "ridge" for c in found)
