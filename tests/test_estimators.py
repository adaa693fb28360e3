"""From names to scikit-learn objects: what a wrong name says, and what a right one gives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import BaggingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    KFold,
    LeaveOneGroupOut,
    RepeatedKFold,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.pipeline import Pipeline
from sklearn.svm import SVR

from hpc_sweep.estimators import (
    NameFault,
    build_estimator,
    build_scorers,
    build_splitter,
    check_model,
    check_search,
    count_splits,
    import_object,
    is_classifier,
    needs_target,
    parameter_value,
    split_error,
)

RIDGE = "sklearn.linear_model.Ridge"
SCALER = "sklearn.preprocessing.StandardScaler"
SVM = "sklearn.svm.SVR"
BAGGING = "sklearn.ensemble.BaggingRegressor"
SELECTION = "sklearn.model_selection."

USERS_MODULE = """
from sklearn.base import BaseEstimator, RegressorMixin

class Mine(RegressorMixin, BaseEstimator):
    def __init__(self, depth=1):
        self.depth = depth
    def fit(self, X, y):
        return self
    def predict(self, X):
        return X[:, 0] * 0 + self.depth

class Choosy(Mine):
    def __init__(self, depth=1):
        if depth != 1:
            raise ValueError("depth must be 1")
        self.depth = depth

class Untagged:
    def fit(self, X, y):
        return self
    def get_params(self, deep=True):
        return {}

class Broken:
    def split(self, X, y=None, groups=None):
        raise TypeError("cannot cut this")
    def get_n_splits(self, X=None, y=None, groups=None):
        return 2

def my_scorer(estimator, X, y):
    return 42.0

def sad_scorer(estimator, X, y):
    raise ValueError("no number today")
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_module_of_sweep.py").write_text(USERS_MODULE)
    (tmp_path / "raises_on_import.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "users_module_of_sweep"


def model_faults(
    estimator: Any = None, grid: Any = None, *, pipeline: Any = None
) -> dict[str, str]:
    found = list(check_model("models.3", estimator, pipeline, {"param_grid": grid or {}}))
    return {fault.path: fault.message for fault in found}


def cv_fault(cv: Any) -> str:
    (fault,) = check_search(cv, None)
    assert fault.path == "search.cv"
    return fault.message


def scoring_faults(scoring: Any) -> list[str]:
    found = list(check_search(5, scoring))
    assert {fault.path for fault in found} <= {"search.scoring"}
    return [fault.message for fault in found]


# names of estimators


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("sklearn.linear_model.Rigde", ["has no 'Rigde'", "did you mean 'Ridge'?"]),
        ("sklearn.linear_model.ridge", ["has no 'ridge'", "did you mean 'Ridge'?"]),
        ("sklearn.linear_mode.Ridge", ["'sklearn.linear_mode' cannot be imported", f"'{RIDGE}'"]),
        ("skleran.svm.SVR", ["'skleran.svm' cannot be imported", f"did you mean '{SVM}'?"]),
        ("sklearn.svm.Ridge", ["'sklearn.svm' has no 'Ridge'", f"did you mean '{RIDGE}'?"]),
        ("Ridge", ["no import path", f"did you mean '{RIDGE}'?"]),
        ("StandardScalar", ["no import path", f"did you mean '{SCALER}'?"]),
        ("", ["no import path"]),
        ("..Ridge", ["importing '.' failed with TypeError"]),
        ("sklearn.linear_model.", ["has no ''"]),
        ("no_such_module_at_all.X", ["cannot be imported"]),
        ("os.system", ["no estimator class", "lacks fit, get_params"]),
        ("json.JSONDecoder", ["no estimator class", "lacks fit, get_params"]),
        ("sklearn.linear_model.ridge_regression", ["no estimator class", "lacks fit"]),
        ("sklearn.linear_model", ["no estimator class"]),
        ("sklearn.base.BaseEstimator", ["no estimator class", "lacks fit"]),
        ("sklearn.linear_model._base.LinearModel", ["cannot be made", "abstract"]),
        ("sklearn.multiclass.OneVsRestClassifier", ["cannot be made", "'estimator'"]),
        ("passthrough", ["step of a pipeline only"]),
    ],
)
def test_wrong_estimator(path: str, words: list[str]) -> None:
    found = model_faults(path)
    assert set(found) == {"models.3.estimator"}
    for word in words:
        assert word in found["models.3.estimator"]


def test_a_module_that_raises_on_import(users_module: str) -> None:
    message = model_faults("raises_on_import.X")["models.3.estimator"]
    assert message == "importing 'raises_on_import' failed with RuntimeError: no licence"


def test_a_constructor_that_raises(users_module: str) -> None:
    message = model_faults({f"{users_module}.Choosy": {"depth": 2}})["models.3.estimator"]
    assert "cannot be made: depth must be 1" in message


def test_a_class_that_scikit_learn_does_not_know(users_module: str) -> None:
    message = model_faults(f"{users_module}.Untagged")["models.3.estimator"]
    assert "__sklearn_tags__" in message


def test_a_users_estimator(users_module: str) -> None:
    assert model_faults(f"{users_module}:Mine", {"depth": [1, 2]}) == {}
    built = build_estimator({f"{users_module}.Mine": {"depth": 5}}, None)
    assert built.depth == 5
    assert not is_classifier(built)


def test_both_ways_to_write_a_path() -> None:
    assert import_object(RIDGE) is import_object("sklearn.linear_model:Ridge") is Ridge


@pytest.mark.parametrize("step", [None, 5, [RIDGE]])
def test_no_estimator_at_all(step: Any) -> None:
    with pytest.raises(NameFault, match="is no estimator"):
        build_estimator(step, None)


# parameters


@pytest.mark.parametrize(
    ("parameter", "words"),
    [("alhpa", "did you mean 'alpha'?"), ("zzz", "it has alpha, fit_intercept")],
)
def test_unknown_constructor_parameter(parameter: str, words: str) -> None:
    message = model_faults({RIDGE: {parameter: 1}})["models.3.estimator"]
    assert message.startswith(f"'{RIDGE}' has no parameter '{parameter}'")
    assert words in message


def test_unknown_grid_parameters_are_all_named() -> None:
    found = model_faults(RIDGE, [{"alhpa": [1], "tol": [1]}, {"slover": ["svd"], "zzz": [1]}])
    assert set(found) == {f"models.3.param_grid.{name}" for name in ("alhpa", "slover", "zzz")}
    assert "'Ridge' has no parameter 'alhpa'; did you mean 'alpha'?" in found.values()
    assert "did you mean 'solver'?" in found["models.3.param_grid.slover"]
    assert "it has" in found["models.3.param_grid.zzz"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rigde__alpha", "did you mean 'ridge__alpha'?"),
        ("ridge__alhpa", "did you mean 'ridge__alpha'?"),
        ("standard_scaler__with_mean", "did you mean 'standardscaler__with_mean'?"),
        ("alpha", "it has memory, steps"),
    ],
)
def test_unknown_parameter_of_a_pipeline(name: str, words: str) -> None:
    found = model_faults(pipeline=[SCALER, RIDGE], grid={name: [1]})
    assert words in found[f"models.3.param_grid.{name}"]


def test_constructor_parameters_are_set() -> None:
    built = build_estimator({RIDGE: {"alpha": 2.5, "solver": "svd"}}, None)
    assert isinstance(built, Ridge)
    assert (built.alpha, built.solver, built.tol) == (2.5, "svd", Ridge().tol)
    assert build_estimator({RIDGE: None}, None).alpha == Ridge().alpha


# nested estimators


def test_nested_estimator() -> None:
    step = {BAGGING: {"estimator": {RIDGE: {"alpha": 3}}, "n_estimators": 2}}
    built = build_estimator(step, None)
    assert isinstance(built, BaggingRegressor)
    assert isinstance(built.estimator, Ridge)
    assert built.estimator.alpha == 3
    assert model_faults(step, {"estimator__alpha": [1, 2], "n_estimators": [1]}) == {}


def test_nested_estimator_with_a_fault() -> None:
    step = {BAGGING: {"estimator": {RIDGE: {"alhpa": 3}}}}
    assert "did you mean 'alpha'?" in model_faults(step)["models.3.estimator"]


def test_estimators_in_lists() -> None:
    columns = "sklearn.compose.ColumnTransformer"
    scaler = {"sklearn.preprocessing.MinMaxScaler": {"clip": True}}
    step = {columns: {"transformers": [["a", scaler, [0]], ["b", "passthrough", [1]]]}}
    built = build_estimator(None, [step, RIDGE])
    X = np.arange(10.0).reshape(5, 2)
    assert built[:-1].fit_transform(X).tolist() == [[i / 4, 2 * i + 1] for i in range(5)]
    assert clone(built)[0].transformers[0][1].clip is True
    assert model_faults(step, {"a__clip": [True, False]}) == {}
    wrong = {columns: {"transformers": [["a", {"sklearn.preprocessing.MinMax": {}}, [0]]]}}
    assert "did you mean" in model_faults(wrong)["models.3.estimator"]


def test_estimators_in_a_grid() -> None:
    grid = [{"estimator": [{RIDGE: {}}], "estimator__alpha": [1]}, {"estimator": [{SVM: None}]}]
    assert model_faults(BAGGING, grid) == {}


def test_a_grids_estimator_lends_its_parameters_to_that_grid_only() -> None:
    grid = [{"estimator": [{RIDGE: {}}, {SVM: {}}]}, {"estimator__alpha": [1]}]
    assert set(model_faults(BAGGING, grid)) == {"models.3.param_grid.estimator__alpha"}


def test_estimators_in_a_grid_with_a_fault() -> None:
    found = model_faults(BAGGING, {"estimator": [{RIDGE: {}}, {"sklearn.svm.SVRR": None}]})
    assert "did you mean 'SVR'?" in found["models.3.param_grid.estimator"]


@pytest.mark.parametrize(
    "value",
    [1, 1.5, "a.B", None, True, [1, ["a.B"]], {"a": 1}, {"a": {}, "b": {}}, {"a": {}}, {"a.b": 1}],
)
def test_other_values_stay(value: Any) -> None:
    assert parameter_value(value) == value


def test_infinite_values_become_numbers_again() -> None:
    assert parameter_value("inf") == math.inf
    assert parameter_value("-inf") == -math.inf
    assert math.isnan(parameter_value("nan"))
    built = build_estimator({"sklearn.impute.SimpleImputer": {"missing_values": "nan"}}, None)
    assert math.isnan(built.missing_values)


# pipelines


def test_steps_are_named_as_make_pipeline_names_them() -> None:
    built = build_estimator(None, [SCALER, SCALER, {SVM: {"C": 7}}])
    assert [name for name, _ in built.steps] == ["standardscaler-1", "standardscaler-2", "svr"]
    assert built["svr"].C == 7


def test_steps_with_names() -> None:
    built = build_estimator(None, {"scale": SCALER, "nothing": "passthrough", "clf": {SVM: {}}})
    assert isinstance(built, Pipeline)
    assert [name for name, _ in built.steps] == ["scale", "nothing", "clf"]
    assert built["nothing"] == "passthrough"
    assert isinstance(built["clf"], SVR)


@pytest.mark.parametrize("name", ["a__b", "steps", "memory", "verbose"])
def test_names_that_a_pipeline_refuses(name: str) -> None:
    found = model_faults(pipeline={name: SCALER, "clf": SVM})
    assert f"'{name}' cannot name a step" in found["models.3.pipeline"]


@pytest.mark.parametrize("pipeline", [[RIDGE, SVM], {"a": RIDGE, "b": SVM}])
def test_a_step_that_does_not_transform(pipeline: Any) -> None:
    message = model_faults(pipeline=pipeline)["models.3.pipeline"]
    assert message == f"'{RIDGE}' is no transformer class (it lacks transform)"


def test_a_wrong_step() -> None:
    message = model_faults(pipeline=[SCALER, "sklearn.svm.SVRR"])["models.3.pipeline"]
    assert "did you mean 'SVR'?" in message


def test_a_step_chosen_by_the_grid() -> None:
    grid = {"scale": [{SCALER: {}}, "passthrough"], "scale__with_mean": [True]}
    assert model_faults(pipeline={"scale": "passthrough", "clf": SVM}, grid=grid) == {}


def test_pipelines_are_fresh_each_time() -> None:
    one, other = (build_estimator(None, [SCALER, RIDGE]) for _ in range(2))
    assert one["ridge"] is not other["ridge"]
    clone(one).fit(np.arange(6.0).reshape(3, 2), np.arange(3.0))


def test_classifiers_and_targets() -> None:
    classifier = build_estimator(None, [SCALER, "sklearn.linear_model.LogisticRegression"])
    assert is_classifier(classifier)
    assert needs_target(classifier)
    assert not is_classifier(Ridge())
    assert not needs_target(build_estimator("sklearn.cluster.KMeans", None))
    assert not needs_target(build_estimator(None, [SCALER, "passthrough"]))


# splitters


def test_an_int_is_stratified_for_classifiers() -> None:
    assert isinstance(build_splitter(4, classifier=True), StratifiedKFold)
    made = build_splitter(4, classifier=False)
    assert type(made) is KFold
    assert made.n_splits == 4


def test_splitters_by_class() -> None:
    made = build_splitter(
        {"class": f"{SELECTION}TimeSeriesSplit", "n_splits": 3, "test_size": 2}, False
    )
    assert isinstance(made, TimeSeriesSplit)
    assert (made.n_splits, made.test_size) == (3, 2)
    assert count_splits(made, 20) == 3
    repeated = build_splitter({"class": f"{SELECTION}RepeatedKFold", "n_repeats": 2}, False)
    assert isinstance(repeated, RepeatedKFold)
    assert count_splits(repeated, 20) == 10
    one_out = build_splitter({"class": f"{SELECTION}LeaveOneOut"}, False)
    assert count_splits(one_out, 17) == 17


def test_whether_many_samples_split_is_tried_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_sweep.estimators.MANY_SAMPLES", 10)
    asked = []

    class Noting(KFold):
        def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:
            asked.append(len(X))
            return super().split(X, y, groups)

    assert split_error(Noting(3), 10**6) is None
    assert asked == [10]
    assert split_error(TimeSeriesSplit(2, test_size=40), 200) is None, "ten are too few for it"
    assert "n_splits=3 greater" in str(split_error(KFold(3), 2))
    assert split_error(LeaveOneGroupOut(), 2, np.array(["a", "b"])) is None
    assert "2 unique groups" in str(split_error(LeaveOneGroupOut(), 1, np.array(["a"])))


@pytest.mark.parametrize(
    "cv",
    [
        5,
        {"class": f"{SELECTION}StratifiedKFold"},
        {"class": f"{SELECTION}ShuffleSplit", "n_splits": 2},
        {"class": f"{SELECTION}PredefinedSplit", "test_fold": [0, 1, 1]},
        {"class": f"{SELECTION}KFold", "n_splits": 500},
        {"class": f"{SELECTION}TimeSeriesSplit", "test_size": 1000},
    ],
)
def test_good_splitters_even_if_a_hundred_samples_are_too_few(cv: Any) -> None:
    assert list(check_search(cv, None)) == []


@pytest.mark.parametrize(
    ("cv", "words"),
    [
        ({"class": f"{SELECTION}KFoldd"}, ["has no 'KFoldd'", "did you mean 'KFold'?"]),
        ({"class": f"{SELECTION}KFold", "n_split": 3}, ["'n_split'", "did you mean 'n_splits'?"]),
        ({"class": f"{SELECTION}KFold", "n_splits": 1}, ["cannot be made", "n_splits=1"]),
        ({"class": f"{SELECTION}KFold", "n_splits": "3"}, ["cannot be made", "Integral"]),
        ({"class": f"{SELECTION}LeavePOut"}, ["cannot be made", "'p'"]),
        ({"class": f"{SELECTION}PredefinedSplit", "test_fold": "ab"}, ["cannot be made"]),
        ({"class": f"{SELECTION}BaseCrossValidator"}, ["cannot be made", "abstract"]),
        ({"class": f"{SELECTION}GridSearchCV"}, ["no splitter class", "lacks split"]),
        ({"class": "builtins.str"}, ["no splitter class", "lacks get_n_splits"]),
        ({"class": "builtins.str", "object": 1}, ["no splitter class"]),
        ({"class": "os.path"}, ["no splitter class"]),
        ({"class": "KFold"}, ["no import path"]),
        ({"n_splits": 3}, ["needs class"]),
        ({"class": 5}, ["needs class"]),
        ({"class": f"{SELECTION}TimeSeriesSplit", "test_size": "a"}, ["cannot split", "TypeError"]),
        ({"class": f"{SELECTION}GroupKFold"}, ["GroupKFold needs groups"]),
        ({"class": f"{SELECTION}LeaveOneGroupOut"}, ["needs groups"]),
        ({"class": f"{SELECTION}LeavePGroupsOut", "n_groups": 2}, ["needs groups"]),
        ({"class": f"{SELECTION}GroupShuffleSplit"}, ["needs groups"]),
        ({"class": f"{SELECTION}StratifiedGroupKFold"}, ["needs groups"]),
    ],
)
def test_wrong_splitter(cv: Any, words: list[str]) -> None:
    message = cv_fault(cv)
    for word in words:
        assert word in message


def test_a_users_splitter_that_raises(users_module: str) -> None:
    assert "TypeError: cannot cut this" in cv_fault({"class": f"{users_module}.Broken"})
    assert "no licence" in cv_fault({"class": "raises_on_import.X"})


# scorers

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0.0, 1.0, 4.0, 2.0, 3.0, 5.0])


def test_scorers_give_scikit_learns_numbers() -> None:
    from sklearn.metrics import max_error, r2_score

    fitted = Ridge().fit(X, Y)
    r2, worst = r2_score(Y, fitted.predict(X)), max_error(Y, fitted.predict(X))
    assert build_scorers(fitted, None)(fitted, X, Y) == r2
    assert build_scorers(fitted, "r2")(fitted, X, Y) == r2
    assert build_scorers(fitted, ["r2", "neg_max_error"])(fitted, X, Y) == {
        "r2": r2,
        "neg_max_error": -worst,
    }
    assert build_scorers(fitted, {"mine": "r2"})(fitted, X, Y) == {"mine": r2}


def test_a_users_scorer(users_module: str) -> None:
    fitted = Ridge().fit(X, Y)
    path = f"{users_module}:my_scorer"
    assert build_scorers(fitted, path)(fitted, X, Y) == 42.0
    assert build_scorers(fitted, {"a": path, "b": "r2"})(fitted, X, Y)["a"] == 42.0
    assert scoring_faults(path) == []


def test_one_metric_that_fails_leaves_the_others(users_module: str) -> None:
    fitted = Ridge().fit(X, Y)
    scorers = build_scorers(fitted, {"bad": f"{users_module}:sad_scorer", "good": "r2"})
    scores = scorers(fitted, X, Y)
    assert "no number today" in scores["bad"]
    assert isinstance(scores["good"], float)


@pytest.mark.parametrize(
    ("scoring", "words"),
    [
        ("R2", ["'R2' is no scorer; did you mean 'r2'?"]),
        ("neg_mean_square_error", ["did you mean 'neg_mean_squared_error'?"]),
        ("qqq", ["'qqq' is no scorer", "get_scorer_names"]),
        ("", ["'' is no scorer"]),
        (["r2", "acuracy"], ["did you mean 'accuracy'?"]),
        ({"a": "r2", "b": "acuracy"}, ["'acuracy' is no scorer"]),
        ("os:no_such_scorer", ["'os' has no 'no_such_scorer'"]),
        ("no_such_module_at_all:x", ["cannot be imported"]),
        (":", ["no import path"]),
    ],
)
def test_wrong_scorer(scoring: Any, words: list[str]) -> None:
    (message,) = scoring_faults(scoring)
    for word in words:
        assert word in message


def test_all_wrong_scorers_are_named() -> None:
    assert len(scoring_faults({"a": "xxx", "b": "r2", "c": "yyy"})) == 2


@pytest.mark.parametrize("scoring", [None, "r2", ["r2", "neg_max_error"], {"a": "r2"}])
def test_good_scorers(scoring: Any) -> None:
    assert scoring_faults(scoring) == []


@pytest.mark.parametrize("scoring", ["sklearn.metrics:r2_score", "os:sep"])
def test_things_that_are_no_scorers(scoring: str) -> None:
    with pytest.raises(ValueError, match="scor"):
        build_scorers(LogisticRegression(), scoring)


def test_a_list_becomes_a_tuple_where_the_default_is_one() -> None:
    scaler = build_estimator(
        {"sklearn.preprocessing.MinMaxScaler": {"feature_range": [-1, 1]}}, None
    )
    assert scaler.feature_range == (-1, 1)
    assert parameter_value([1, 2], default=(1, 1)) == (1, 2)
    assert parameter_value([1, 2], default=None) == [1, 2]


@pytest.mark.parametrize("classifier", [True, False])
def test_one_fold_is_one_split_into_train_and_test(classifier: bool) -> None:
    splitter = build_splitter(1, classifier)
    ((train, test),) = splitter.split(np.zeros((50, 1)), np.arange(50) % 2)
    assert (len(train), len(test)) == (45, 5)
    assert count_splits(splitter, 50) == 1
