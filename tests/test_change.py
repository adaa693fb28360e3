"""A store whose candidates change: what readers see, what a kill leaves, what is equal then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from builders import NEIGHBORS, RIDGE, Truth, invent, leave, make_spec, make_store, whole
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, FAILED, OUT_OF_MEMORY, PENDING, TIMED_OUT
from hpc_sweep.plan import Chunk
from hpc_sweep.plan.cutting import uncovered
from hpc_sweep.store import Change, Ledger, PartName, Store, change_store, fold, set_pending
from hpc_sweep.strategies import draw

CHUNK = (0, 0)
FEW = [0.1, 1, 10]
WIDER = {**RIDGE, "param_grid": {"alpha": [0.01, 0.1, 1, 10, 100]}}
MANY = {**RIDGE, "param_grid": {"alpha": [*FEW, *range(11, 40)]}}
LASSO = {"estimator": "sklearn.linear_model.Lasso"}
DERIVED = ("rank_test_score", "best_index", "best_score", "best_model", "partition_status")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


Models = Sequence[Mapping[str, Any]]


def planned(store: Store, models: Models) -> Change | None:
    """Return what changes when a store's spec gets these models."""
    spec = make_spec(store.path.parent, models, store.header.dims)
    return Change.between(store.strategy, draw(spec, store.strategy))


def changed(store: Store, models: Models) -> Store:
    """Change the candidates of a store to those of these models."""
    change = planned(store, models)
    assert change is not None
    return change_store(store, change)


def truth_of(store: Store) -> Truth:
    """Invent results by the candidates' ids: the same in whatever order and store."""
    found = invent(store)
    found.message[...] = ""
    found.n_samples[...] = 50
    for index, candidate in enumerate(store.candidates):
        rng = np.random.default_rng(int(candidate.id, 16))
        for scores in found.scores.values():
            scores[..., index, :] = rng.normal(size=scores[..., index, :].shape)
        failed = rng.random(store.header.shape) < 0.2
        found.status[..., index] = np.where(failed, FAILED, DONE)
        found.message[..., index] = np.where(failed, f"no luck with {candidate.id}", "")
        found.scores["score"][failed, index] = np.nan
    return found


def leave_rest(store: Store, chunk: Chunk, truth: Truth | None = None) -> list[PartName]:
    """Leave parts that cover what a chunk lacks, and return all that it has."""
    ledger = Ledger.read(store)
    unit, covered = whole(store, chunk), ledger.covered(chunk)
    units = [unit] if covered is None else uncovered(unit, covered)
    truth = truth or truth_of(store)
    return [*ledger.parts.get(chunk, []), *(leave(store, truth, each) for each in units)]


def finish(store: Store, truth: Truth | None = None) -> int:
    """Do what is left of a store; return how many parts that took."""
    count = 0
    ledger = Ledger.read(store)
    for chunk in ledger.chunks:
        if chunk not in ledger.folded:
            names = leave_rest(store, chunk, truth)
            count += len(names)
            fold(store, chunk, names)
    assert Ledger.read(store).is_complete
    return count


def fresh(folder: Path, models: Models) -> Store:
    """Return a store that had these models from the beginning."""
    folder.mkdir()
    store = make_store(folder, models=models)
    finish(store)
    return store


def view(path: Path) -> xr.Dataset:
    """Return what the spec asks for in the order of ids; ``best_index`` as id."""
    found = xr.open_zarr(path, chunks=None).load()
    ids = np.array([*found["candidate_id"].values.tolist(), "none"], dtype=object)
    found["best_index"] = (found["best_index"].dims, ids[found["best_index"].values])
    found = found.isel(candidate=np.flatnonzero(found["in_spec"].values))
    return found.isel(candidate=np.argsort(found["candidate_id"].values.tolist()))


def assert_same(left: xr.Dataset, right: xr.Dataset, names: Sequence[str]) -> None:
    for name in names:
        assert left[name].dtype.kind == right[name].dtype.kind, name
        np.testing.assert_array_equal(left[name].values, right[name].values, err_msg=name)


def assert_as_fresh(store: Store, folder: Path, models: Models) -> None:
    """Fail unless a store equals one that had these models from the beginning."""
    left, right = view(store.path), view(fresh(folder, models).path)
    more = set(map(str, left.variables)) - set(map(str, right.variables))
    assert set(right.variables) <= set(left.variables)
    assert all("param_" in name for name in more if store.header.dropped)
    assert store.header.dropped or not more
    for name in map(str, right.variables):  # what a dropped candidate lacks is text for all
        if "param_" in name and store.header.dropped and right[name].dtype.kind == "f":
            numbers = [float(text or "nan") for text in left[name].values.ravel().tolist()]
            left[name] = left[name].dims, np.reshape(numbers, left[name].shape)
    aside = {"fit_time", "score_time", "candidate", "revision"}
    assert_same(left, right, sorted(set(map(str, right.variables)) - aside))
    assert (left["revision"] == store.header.revision).all()
    assert (
        xr.open_zarr(store.path, consolidated=False, chunks=None)
        .load()
        .equals(xr.open_zarr(store.path, consolidated=True, chunks=None).load())
    )


ADDED = [
    pytest.param([RIDGE], [WIDER], id="values"),
    pytest.param([RIDGE], [RIDGE, NEIGHBORS], id="numbers become text"),
    pytest.param([RIDGE], [NEIGHBORS, WIDER], id="model before"),
    pytest.param([LASSO], [RIDGE, LASSO], id="a parameter appears"),
    pytest.param([RIDGE], [MANY], id="blocks"),
    pytest.param([MANY], [MANY, NEIGHBORS], id="more blocks"),
]


@pytest.mark.parametrize(("before", "after"), ADDED)
def test_added_candidates(tmp_path: Path, before: Models, after: Models) -> None:
    store = make_store(tmp_path, models=before)
    finish(store)
    old, n_old = xr.open_zarr(store.path, chunks=None).load(), len(store.candidates)
    grown = changed(store, after)
    new = xr.open_zarr(store.path, chunks=None).load()
    assert_same(
        new.isel(candidate=slice(n_old)), old, ["test_score", "status", "candidate_id", *DERIVED]
    )
    assert (new["status"][..., n_old:] == PENDING).all()
    assert new["test_score"][..., n_old:, :].isnull().all()
    assert (new["rank_test_score"][..., n_old:] == -1).all()
    assert not Ledger.read(grown).folded
    finish(grown)
    assert_as_fresh(grown, tmp_path / "fresh", after)


def test_chunks_of_old_candidates_are_not_written_again(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[MANY])
    finish(store)
    grown = changed(store, [MANY, NEIGHBORS])
    names = ("test_score", "mean_test_score", "fit_time", "message", "status")
    arrays = [array for array in store.arrays if array.name in names]
    files = [store.chunk_file(array, CHUNK) for array in arrays]
    before = [file.stat().st_ino for file in files]
    finish(grown)
    assert [file.stat().st_ino for file in files] == before
    assert all(grown.chunk_file(array, CHUNK, 1).exists() for array in arrays)


def test_a_half_finished_store(tmp_path: Path) -> None:
    """One chunk is folded, one has parts of some of its candidates, two have nothing."""
    store = make_store(tmp_path)
    truth = truth_of(store)
    fold(store, CHUNK, [leave(store, truth, whole(store, CHUNK))])
    leave(store, truth, replace(whole(store, (1, 0)), last=2))
    grown = changed(store, [WIDER, NEIGHBORS])
    covered = Ledger.read(grown).covered((1, 0))
    assert covered is not None
    assert covered.any(axis=0).tolist() == [True, True, *[False] * 5]
    assert finish(grown) == 5
    assert_as_fresh(grown, tmp_path / "fresh", [WIDER, NEIGHBORS])


@pytest.mark.parametrize("left", [[LASSO, WIDER], [NEIGHBORS], [RIDGE], [RIDGE, NEIGHBORS]])
def test_dropped_candidates_and_taking_them_back(tmp_path: Path, left: Models) -> None:
    all_of_them = [LASSO, WIDER, NEIGHBORS]
    store = make_store(tmp_path, models=all_of_them)
    finish(store)
    less = changed(store, left)
    assert less.candidates != store.candidates or left == [LASSO, WIDER]
    assert [each.id for each in less.candidates] == [each.id for each in store.candidates]
    assert Ledger.read(less).cells_done() == Ledger.read(less).n_cells
    assert finish(less) == 0
    in_spec = xr.open_zarr(store.path)["in_spec"].values
    results = xr.open_zarr(store.path, chunks=None).load()
    assert (results["rank_test_score"].values[..., ~in_spec] == -1).all()
    assert results["status"].all()
    for name in view(store.path).data_vars:  # text stays text
        if str(name).startswith(("param_", "best_param_")):
            assert view(store.path)[name].dtype.kind in "OT"
    with_them = changed(less, all_of_them)
    assert finish(with_them) == 0
    assert_as_fresh(with_them, tmp_path / "fresh", all_of_them)


def test_dropping_equals_never_having_had_them(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[WIDER])
    finish(store)
    less = changed(store, [RIDGE])
    assert finish(less) == 0
    assert_as_fresh(less, tmp_path / "fresh", [RIDGE])


def test_one_change_after_the_other(tmp_path: Path) -> None:
    """Added and dropped at once, never finished between, dropped ones never done taken back."""
    store = make_store(tmp_path, models=[RIDGE, LASSO])
    fold(store, CHUNK, [leave(store, truth_of(store), whole(store, CHUNK))])
    store = changed(store, [WIDER])
    fold(store, CHUNK, leave_rest(store, CHUNK))
    store = changed(store, [NEIGHBORS, LASSO])
    store = changed(store, [MANY, LASSO])
    assert store.header.revision == 3
    assert finish(store) > 0
    assert_as_fresh(store, tmp_path / "fresh", [MANY, LASSO])
    store = changed(store, [WIDER, NEIGHBORS])
    assert finish(store) > 0
    assert_as_fresh(store, tmp_path / "again", [WIDER, NEIGHBORS])


def test_order_alone_is_no_change(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[WIDER, NEIGHBORS])
    backwards = {**WIDER, "param_grid": {"alpha": WIDER["param_grid"]["alpha"][::-1]}}
    assert planned(store, [NEIGHBORS, backwards]) is None


def test_a_model_gets_another_name(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[RIDGE, LASSO])
    finish(store)
    models = [LASSO, {**RIDGE, "name": "shrunk"}]
    named = changed(store, models)
    assert finish(named) == 0
    assert_as_fresh(named, tmp_path / "fresh", models)


def test_models_of_the_same_content_keep_their_names(tmp_path: Path) -> None:
    twins = [RIDGE, {**RIDGE, "param_grid": {"alpha": [7]}}]
    store = make_store(tmp_path, models=twins)
    finish(store)
    names = [candidate.model_name for candidate in Store.open(store.path).candidates]
    assert names == ["ridge"] * 3 + ["ridge-2"]
    grown = changed(store, [*twins, LASSO])
    finish(grown)
    assert_as_fresh(grown, tmp_path / "fresh", [*twins, LASSO])


def test_what_a_change_says(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[WIDER, LASSO])
    store = changed(store, [RIDGE])
    change = planned(store, [{**RIDGE, "param_grid": {"alpha": [1, 2, 3, 100]}}])
    assert change is not None
    assert change.facts() == {"new": 2, "taken_back": 1, "dropped": 2, "kept": 1}
    assert change.text(1617) == (
        "2 new candidates for 1,617 partitions; 1 taken back; 2 dropped; 1 kept"
    )


# what failed


def test_retrying(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = truth_of(store)
    truth.status[0, 1] = [DONE, TIMED_OUT, OUT_OF_MEMORY]
    truth.status[2, 3, 0] = FAILED
    for chunk in [CHUNK, (0, 1), (1, 0)]:
        fold(store, chunk, [leave(store, truth, whole(store, chunk))])
    leave(store, truth, replace(whole(store, (1, 1)), last=2))  # its failures are in a part yet
    n_failed = int((truth.status[:, :, :] == FAILED).sum() - (truth.status[2, 3, 2] == FAILED))
    assert set_pending(store, [FAILED, TIMED_OUT]) == {FAILED: n_failed, TIMED_OUT: 1}
    status = xr.open_zarr(store.path)["status"].values
    expected = np.where(np.isin(truth.status, [FAILED, TIMED_OUT]), PENDING, truth.status)
    expected[2, 3, 2] = PENDING
    np.testing.assert_array_equal(status, expected)
    assert set_pending(store, [FAILED, TIMED_OUT]) == {}
    better = truth_of(store)
    better.status[...] = DONE
    better.message[...] = ""
    finish(store, better)
    found = xr.open_zarr(store.path, chunks=None).load()
    again = expected == PENDING
    np.testing.assert_array_equal(found["status"], np.where(again, DONE, truth.status))
    np.testing.assert_array_equal(found["message"], np.where(again, "", truth.message))
    old, new = (each.scores["score"] for each in (truth, better))
    np.testing.assert_array_equal(found["test_score"], np.where(again[..., None], new, old))


def test_a_retry_that_fails_too_lowers_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    finish(store)
    before = xr.open_zarr(store.path, chunks=None).load()
    set_pending(store, [FAILED])
    worse = truth_of(store)
    worse.status[...] = TIMED_OUT
    worse.scores["score"][...] = np.nan
    finish(store, worse)
    after = xr.open_zarr(store.path, chunks=None).load()
    assert_same(after, before, ["test_score", "best_index", "rank_test_score"])
    failed = before["status"].values == FAILED
    np.testing.assert_array_equal(after["status"], np.where(failed, TIMED_OUT, DONE))


# kills

KILLED_AFTER = [{**RIDGE, "param_grid": {"alpha": [*FEW[1:], 100]}}, NEIGHBORS]


def look(found: xr.Dataset, before: xr.Dataset, after: xr.Dataset) -> None:
    """Fail unless a reader sees a store as it was before a step, or as it is after it.

    Chunk by chunk, since a step goes through them one after the other; while new candidates are
    not there, as it was before.
    """
    count, old, new = (each.sizes["candidate"] for each in (found, before, after))
    sides = (before,) if count == old != new else (before, after)
    for name in map(str, found.variables):
        alike = [_alike(found[name], each[name], after[name]) for each in sides if name in each]
        assert np.any(alike, axis=0).all(), name


def _alike(found: xr.DataArray, expected: xr.DataArray, new: xr.DataArray) -> NDArray[np.bool_]:
    """Return where an array is as expected; of candidates that are not there yet: as new ones."""
    if found.dtype != expected.dtype:
        return np.zeros(found.shape, dtype=bool)
    if "candidate" in found.dims:
        n_here, n_there = found.sizes["candidate"], expected.sizes["candidate"]
        expected = expected.isel(candidate=slice(n_here))
        if n_there < n_here:
            rest = new.isel(candidate=slice(n_there, n_here)).astype(expected.dtype)
            expected = xr.concat([expected, rest], "candidate", join="override")
    return _equal(found.values, expected.transpose(*found.dims).values)


def _equal(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((left == right) | ((left != left) & (right != right)))


def kill_everywhere(base: Path, step: str) -> int:
    """Kill a step at each write; return how many there were."""
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(base), step]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout)


def killable(tmp_path: Path) -> Store:
    base = tmp_path / "base"
    base.mkdir()
    return make_store(base, (1, 2), (1, 2))


@pytest.mark.timeout(900)
def test_a_change_that_is_killed(tmp_path: Path) -> None:
    store = killable(tmp_path)
    finish(store)
    assert kill_everywhere(store.path.parent, "change") > 50


@pytest.mark.timeout(900)
def test_a_ranking_that_is_killed(tmp_path: Path) -> None:
    store = killable(tmp_path)
    finish(store)
    changed(store, [{**RIDGE, "param_grid": {"alpha": FEW[1:]}}])
    assert kill_everywhere(store.path.parent, "rank") > 10


@pytest.mark.timeout(900)
def test_a_fold_of_added_candidates_that_is_killed(tmp_path: Path) -> None:
    store = killable(tmp_path)
    finish(store)
    grown = changed(store, KILLED_AFTER)
    leave_rest(grown, CHUNK)
    assert kill_everywhere(store.path.parent, "rank") > 20


@pytest.mark.timeout(900)
def test_a_retry_that_is_killed(tmp_path: Path) -> None:
    store = killable(tmp_path)
    truth = truth_of(store)
    truth.status[..., 1] = FAILED
    leave(store, truth, replace(whole(store, CHUNK), last=2))
    assert kill_everywhere(store.path.parent, "retry") > 20
