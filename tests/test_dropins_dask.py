"""Our searches on the workers of a Dask client."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import dask.array
import dask.dataframe
import joblib
import numpy as np
import pandas
import pytest
from distributed import Client, LocalCluster
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from hpc_sweep import GridSearchCV
from hpc_sweep.search.dropins import computed

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, (90, 4))
Y = (X[:, 0] + RNG.normal(size=90) > 2).astype(int)
GRID = {"svc__C": [0.01, 1, 10, 100]}


class Telling(TransformerMixin, BaseEstimator):
    """Leaves X as it is, and the number of its process in a file for each fit."""

    def __init__(self, path: str = "") -> None:
        self.path = path

    def fit(self, X: Any, y: Any = None) -> Telling:
        with Path(self.path).open("a") as file:
            file.write(f"{os.getpid()}\n")
        return self

    def transform(self, X: Any) -> Any:
        return X


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster) as made:
        yield made


@pytest.fixture
def search(tmp_path: Path) -> GridSearchCV:
    model = make_pipeline(Telling(str(tmp_path / "fits")), SVC())
    return GridSearchCV(model, GRID, cv=4, refit=False)


def processes_of(search: GridSearchCV) -> list[int]:
    """Return where the transformer was fitted, each time."""
    return [int(line) for line in Path(search.estimator[0].path).read_text().split()]


def test_fits_go_to_the_workers_of_an_active_client(client: Client, search: GridSearchCV) -> None:
    with mock.patch.object(client, "scatter", wraps=client.scatter) as scattered:
        search.fit(X, Y)
    sent = [call.args[0] for call in scattered.call_args_list]
    assert [each for each in sent if each is X] == [X]
    workers = set(client.run(os.getpid).values())
    assert len(processes_of(search)) == 4
    assert set(processes_of(search)) <= workers
    theirs = model_selection.GridSearchCV(search.estimator, GRID, cv=4, n_jobs=1).fit(X, Y)
    for key in ("split0_test_score", "mean_test_score", "rank_test_score"):
        np.testing.assert_array_equal(search.cv_results_[key], theirs.cv_results_[key])
    assert set(search.shared) == {0}


def test_what_a_fit_raises_on_a_worker_is_raised_here(client: Client, search: GridSearchCV) -> None:
    search.set_params(param_grid={"svc__C": [1, 2, -1]}, error_score="raise")
    with pytest.raises(ValueError, match="The 'C' parameter of SVC"):
        search.fit(X, Y)


def test_one_job_stays_in_its_process(client: Client, search: GridSearchCV) -> None:
    search.set_params(n_jobs=1).fit(X, Y)
    assert set(processes_of(search)) == {os.getpid()}


@pytest.mark.parametrize(
    ("options", "here"),
    [({"backend": "threading", "n_jobs": 2}, True), ({"backend": "dask"}, False)],
    ids=["threads", "dask"],
)
def test_what_joblib_was_told_holds(
    client: Client, search: GridSearchCV, options: dict[str, Any], here: bool
) -> None:
    with joblib.parallel_config(**options):
        search.fit(X, Y)
    assert (set(processes_of(search)) == {os.getpid()}) is here
    assert (search.shared >= 0).all()


@pytest.mark.parametrize("wrap", [dask.array.from_array, dask.delayed], ids=["array", "delayed"])
def test_collections_are_computed(client: Client, search: GridSearchCV, wrap: Any) -> None:
    groups = np.arange(90) // 10
    search.set_params(cv=GroupKFold(3), refit=True)
    found = search.fit(wrap(X), wrap(Y), groups=wrap(groups)).cv_results_["mean_test_score"]
    expected = search.fit(X, Y, groups=groups).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(found, expected)
    assert isinstance(search.predict(X), np.ndarray)


KINDS: dict[str, Any] = {
    "array": dask.array.from_array,
    "delayed": dask.delayed,
    "frame": lambda values: dask.dataframe.from_pandas(pandas.DataFrame(values), npartitions=2),
    "numpy": np.asarray,
}


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=3)), ids="-".join)
def test_collections_of_any_kinds_stay_what_they_were(kinds: tuple[str, ...]) -> None:
    values = [np.full((4, 1), number) for number in range(3)]
    with dask.config.set(scheduler="synchronous"):
        found = computed(*(KINDS[kind](each) for kind, each in zip(kinds, values, strict=True)))
    np.testing.assert_array_equal([np.asarray(each) for each in found], values)


def test_what_y_and_groups_share_is_computed_once() -> None:
    calls: list[int] = []

    def make() -> Any:
        calls.append(1)
        return np.arange(4)

    made = dask.delayed(make, pure=False)()
    with dask.config.set(scheduler="synchronous"):
        computed(np.zeros((4, 1)), made + 1, made + 2)
    assert len(calls) == 1


def test_a_search_within_a_task_stays_in_its_worker(client: Client, search: GridSearchCV) -> None:
    fitted = client.submit(search.fit, X, Y).result(timeout=60)
    assert fitted.cv_results_["mean_test_score"].shape == (4,)
    assert len(set(processes_of(search))) == 1
    assert set(processes_of(search)) <= set(client.run(os.getpid).values())


def test_a_search_within_a_task_beside_its_client_ends(search: GridSearchCV) -> None:
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(processes=False, **options) as cluster, Client(cluster) as made:
        fitted = made.submit(search.fit, X, Y).result(timeout=60)
    assert set(fitted.shared) == {0}


def test_without_a_client_dask_is_not_imported() -> None:
    code = (
        "import sys, numpy, hpc_sweep\n"
        "assert 'sklearn' not in sys.modules\n"
        "from sklearn.linear_model import Ridge\n"
        "X = numpy.arange(40.0).reshape(-1, 2)\n"
        "hpc_sweep.GridSearchCV(Ridge(), {'alpha': [1, 2]}).fit(X, X[:, 0])\n"
        "assert not {'dask', 'distributed'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
