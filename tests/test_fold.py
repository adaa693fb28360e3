"""The fold: parts of any cut become the chunk that an independent computation gives."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from builders import (
    NEIGHBORS,
    RIDGE,
    Truth,
    all_chunks,
    cut,
    cv_results,
    fill,
    halves,
    invent,
    leave,
    make_store,
    positions,
    small_disk,
    whole,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hpc_sweep.choices import DONE, EMPTY, FAILED, OUT_OF_MEMORY, PENDING, TIMED_OUT
from hpc_sweep.errors import DiskError, StoreError
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.store import Ledger, PartName, Store, fold, write_part
from hpc_sweep.store.ranks import partition_status

CHUNK = (0, 0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is late here, so a part that is not there is missing; nor are there power cuts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setitem(fold.__globals__, "VISIBLE_S", 0.0)


def results_of(store: Store) -> xr.Dataset:
    results: xr.Dataset = xr.open_zarr(store.path, chunks=None).load()
    return results


def fold_all(store: Store, truth: Truth) -> Counter[str]:
    """Fold every chunk from one part; return the partitions by state."""
    counts: Counter[str] = Counter()
    for chunk in all_chunks(store):
        counts.update(fold(store, chunk, [leave(store, truth, whole(store, chunk))]).counts)
    return counts


def check_partition(store: Store, truth: Truth, found: xr.Dataset, place: tuple[int, ...]) -> None:
    """Compare one partition with scikit-learn's formulas."""
    n_splits = int(truth.n_splits[place])
    for metric, scores in truth.scores.items():
        names = [f"{kind}_test_{metric}" for kind in ("mean", "std", "rank")]
        if n_splits == 0 or np.isnan(scores[place][:, :n_splits]).any(axis=1).all():
            expected: dict[str, Any] = {names[0]: np.nan, names[1]: np.nan, names[2]: -1}
        else:
            expected = cv_results(scores[place][:, :n_splits])
            expected = {f"{k}_test_{metric}": expected[f"{k}_test_score"] for k in KINDS}
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} {place}")
    check_best(store, found, place)


KINDS = ("mean", "std", "rank")


def check_best(store: Store, found: xr.Dataset, place: tuple[int, ...]) -> None:
    """Check that what is best follows from the means."""
    mean = found[f"mean_test_{store.spec.refit_metric}"].values
    best = -1 if np.isnan(mean).all() else int(np.nanargmax(mean))
    assert found["best_index"] == best, place
    np.testing.assert_array_equal(found["best_score"], np.nan if best < 0 else mean[best])
    model = "" if best < 0 else store.candidates[best].model_name
    assert found["best_model"].item() == model
    for name in [str(name) for name in found if str(name).startswith("best_param_")]:
        values = found[name.removeprefix("best_")].values
        missing = np.nan if values.dtype.kind in "if" else ""
        np.testing.assert_array_equal(found[name].item(), missing if best < 0 else values[best])


def check(store: Store, truth: Truth) -> None:
    """Compare the whole store with what was invented."""
    results = results_of(store)
    for metric, scores in truth.scores.items():
        np.testing.assert_array_equal(results[f"test_{metric}"], scores)
    for name in ("fit_time", "score_time", "status", "message", "n_samples", "n_splits"):
        np.testing.assert_array_equal(results[name], getattr(truth, name), err_msg=name)
    dims = store.header.dims
    for place in np.ndindex(*store.header.shape):
        found = results.isel(dict(zip(dims, place, strict=True)))
        check_partition(store, truth, found, place)


# any grid, any cut


def spoil_some(truth: Truth, rng: np.random.Generator) -> None:
    """Make ties, failed candidates, partitions with fewer splits, and empty ones."""
    n_splits = next(iter(truth.scores.values())).shape[-1]
    for scores in truth.scores.values():
        scores[...] = scores.round(1)
    for place in np.ndindex(*truth.n_splits.shape):
        truth.n_splits[place] = count = rng.integers(0, n_splits + 1)
        failed = rng.random(truth.status.shape[-1]) < 0.3
        truth.status[place] = np.where(failed, FAILED, DONE) if count else EMPTY
        truth.message[place] = np.where(failed & (count > 0), f"split 0: no luck {place}", "")
        for scores in truth.scores.values():
            scores[place][:, count:] = np.nan
            scores[place][failed, :1] = np.nan


def random_units(store: Store, chunk: Chunk, rng: np.random.Generator) -> list[Unit]:
    """Cut a chunk into bands of partitions, and each into slices of candidates."""

    def borders(length: int) -> list[int]:
        inner = rng.integers(0, length + 1, rng.integers(0, 3)).tolist()
        return sorted({0, length, *inner})

    unit = whole(store, chunk)
    return [
        Unit(chunk, start, stop, first, last)
        for start, stop in itertools.pairwise(borders(unit.stop))
        for first, last in itertools.pairwise(borders(unit.last))
    ]


def failed_double(store: Store, truth: Truth, unit: Unit) -> PartName:
    """Write the part of somebody who gave up on a unit."""
    part = cut(store, truth, unit)
    lost = part.status == DONE
    messages = {(int(i), int(j)): "killed its worker" for i, j in np.argwhere(lost)}
    given_up = replace(
        part,
        scores={m: np.where(lost[..., None], np.nan, s) for m, s in part.scores.items()},
        fit_time=np.where(lost[..., None], np.float32(np.nan), part.fit_time),
        status=np.where(lost, FAILED, part.status).astype(np.int8),
        n_samples=np.zeros_like(part.n_samples),
        n_splits=np.zeros_like(part.n_splits),
        messages={**part.messages, **messages},
    )
    return write_part(store.run.parts, store.header.id, unit, given_up)


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return shape, result chunks and read chunks."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, length)) for length in shape)
    read_chunks = tuple(draw(st.integers(1, length + 1)) for length in shape)
    return shape, chunks, read_chunks


# shrinking folds would take minutes
@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(grids(), st.integers(1, 4), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_any_grid_and_any_cut(
    grid: tuple[tuple[int, ...], ...], n_splits: int, mixed: bool, several: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    search: dict[str, Any] = {"scoring": ["r2", "mse"], "refit": "mse"} if several else {}
    models = [RIDGE, NEIGHBORS] if mixed else [RIDGE]
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), *grid, n_splits=n_splits, models=models, **search)
        truth = invent(store, seed)
        spoil_some(truth, rng)
        for chunk in all_chunks(store):
            names = [leave(store, truth, unit) for unit in random_units(store, chunk, rng)]
            again = random_units(store, chunk, rng)
            names += [leave(store, truth, unit) for unit in again[:2]]
            names += [failed_double(store, truth, unit) for unit in again[1:]]
            rng.shuffle(names)
            fold(store, chunk, names)
            assert list(store.run.parts.iterdir()) == []
        check(store, truth)
        assert Ledger.read(store).folded == set(all_chunks(store))


def test_positions_follow_the_sources_chunks(tmp_path: Path) -> None:
    """One place by hand: a 2 × 4 chunk that is read in columns of two."""
    store = make_store(tmp_path, (2, 4), (2, 4), (2, 2))
    assert positions(store, CHUNK)[:5] == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
    truth = invent(store)
    units = [Unit(CHUNK, i, i + 1, 0, 3) for i in range(8)]
    fold(store, CHUNK, [leave(store, truth, unit) for unit in units])
    assert results_of(store)["n_samples"].values[1, 0] == truth.n_samples[1, 0]
    check(store, truth)


def test_chunks_do_not_touch_each_other(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    fold(store, (1, 0), [leave(store, truth, whole(store, (1, 0)))])
    results = results_of(store)
    np.testing.assert_array_equal(results["status"].values[2, :3], DONE)
    assert (results["status"].values[:2] == PENDING).all()
    assert (results["status"].values[2, 3:] == PENDING).all()
    assert (results["best_index"].values[:2] == -1).all()


def test_a_partition_without_any_score(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[RIDGE, NEIGHBORS])
    truth = invent(store)
    truth.scores["score"][0, 0] = np.nan
    truth.status[0, 0] = [FAILED, TIMED_OUT, OUT_OF_MEMORY, FAILED, FAILED]
    assert fold_all(store, truth) == {str(DONE): 11, str(OUT_OF_MEMORY): 1}
    found = results_of(store).isel(latitude=0, longitude=0)
    assert found["best_index"] == -1
    assert np.isnan(found["best_score"])
    assert found["best_model"].item() == found["best_param_alpha"].item() == ""
    assert (found["rank_test_score"] == -1).all()
    assert found["partition_status"] == OUT_OF_MEMORY
    check(store, truth)


def test_a_late_failure_does_not_lower_a_done_whatever_comes_first(tmp_path: Path) -> None:
    for order in (1, -1):
        folder = tmp_path / str(order)
        folder.mkdir()
        store = make_store(folder, (2, 3), (2, 3))
        truth = invent(store)
        unit = whole(store, CHUNK)
        names = [leave(store, truth, unit), failed_double(store, truth, replace(unit, stop=4))]
        fold(store, CHUNK, names[::order])
        check(store, truth)


def test_a_late_success_heals_a_failure(tmp_path: Path) -> None:
    store = make_store(tmp_path, (2, 3), (2, 3))
    truth = invent(store)
    first = failed_double(store, truth, whole(store, CHUNK))
    fold(store, CHUNK, [first, *(leave(store, truth, u) for u in halves(whole(store, CHUNK)))])
    check(store, truth)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ([DONE, FAILED], DONE),
        ([FAILED, FAILED], FAILED),
        ([EMPTY, EMPTY], EMPTY),
        ([EMPTY, FAILED], FAILED),
        ([FAILED, TIMED_OUT], TIMED_OUT),
        ([OUT_OF_MEMORY, EMPTY], OUT_OF_MEMORY),
        ([DONE, PENDING], PENDING),
        ([PENDING, PENDING], PENDING),
    ],
)
def test_state_of_a_partition(status: list[int], expected: int) -> None:
    found = partition_status(np.array([status], dtype=np.int8))
    assert found.dtype == np.int8
    assert found.tolist() == [expected]


# texts


@pytest.mark.parametrize("text", ["ß → 😀", "a\nb\tc", "nul \x00 inside", "x" * 100_000])
def test_any_message_is_kept(tmp_path: Path, text: str) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    truth.message[0, 1, 2] = text
    fold_all(store, truth)
    assert results_of(store)["message"].values[0, 1, 2] == text


def test_a_message_that_is_no_unicode_does_not_end_the_run(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    truth.message[0, 1, 2] = os.fsdecode(b"no file caf\xe9.nc")
    fold_all(store, truth)
    assert results_of(store)["message"].values[0, 1, 2].startswith("no file caf")


# what goes wrong


def failing_write(at: str, error: Callable[[], BaseException]) -> Callable[..., None]:
    """Return a `Store.write` that fails at one array."""
    write = Store.write

    def fail(self: Store, array: Any, chunk: Chunk, values: Any, block: int = 0) -> None:
        if array.name == at:
            raise error()
        write(self, array, chunk, values, block)

    return fail


@pytest.mark.parametrize("at", ["test_score", "best_param_alpha", "message", "status"])
@pytest.mark.parametrize("error", [lambda: DiskError(28, "full"), KeyboardInterrupt])
def test_a_fold_that_is_cut_off_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, error: Any
) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    names = [leave(store, truth, unit) for unit in halves(whole(store, CHUNK))]
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", failing_write(at, error))
        with pytest.raises((DiskError, KeyboardInterrupt)):
            fold(store, CHUNK, names)
    assert store.read_status(CHUNK) is None
    ledger = Ledger.read(store)
    assert not ledger.folded
    assert list(ledger.complete()) == [CHUNK]
    fold(store, CHUNK, ledger.parts[CHUNK])
    for chunk in all_chunks(store)[1:]:
        fold(store, chunk, [leave(store, truth, whole(store, chunk))])
    check(store, truth)


def test_status_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    written: list[str] = []
    write = Store.write

    def note(self: Store, array: Any, chunk: Chunk, values: Any, block: int = 0) -> None:
        written.append(array.name)
        write(self, array, chunk, values, block)

    monkeypatch.setattr(Store, "write", note)
    fold(store, CHUNK, [leave(store, invent(store), whole(store, CHUNK))])
    assert set(written) == {array.name for array in store.arrays}
    assert written[-1] == "status"
    assert len(written) == len(store.arrays)


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path, 1024) as disk:
        store = make_store(disk)
        truth = invent(store)
        names = [leave(store, truth, unit) for unit in halves(whole(store, CHUNK))]
        fill(disk, but=5 * 4096)
        with pytest.raises(DiskError, match="No space left"):
            fold(store, CHUNK, names)
        assert store.read_status(CHUNK) is None
        assert len(list(store.run.parts.iterdir())) == 2
        (disk / "filling").unlink()
        fold(store, CHUNK, names)
        assert Ledger.read(store).folded == {CHUNK}


def test_uncovered_cells(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    name = leave(store, truth, Unit(CHUNK, 0, 6, 0, 2))
    with pytest.raises(StoreError, match=r"chunk \(0, 0\) has 6 cells that no part covers"):
        fold(store, CHUNK, [name])
    assert store.read_status(CHUNK) is None
    assert (store.run.parts / str(name)).exists()


def test_a_part_that_is_missing_or_damaged(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    names = [leave(store, truth, unit) for unit in halves(whole(store, CHUNK))]
    file = store.run.parts / str(names[0])
    content = file.read_bytes()
    for damaged in (content[:-1], b"", None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        with pytest.raises(StoreError, match=f"{names[0]} is missing or damaged"):
            fold(store, CHUNK, names)
        assert store.read_status(CHUNK) is None
        assert (store.run.parts / str(names[1])).exists()


def test_a_fold_whose_worker_died_after_it_can_be_asked_for_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    names = [leave(store, truth, unit) for unit in halves(whole(store, CHUNK))]
    first = fold(store, CHUNK, names)
    assert fold(store, CHUNK, names) == first


def test_parts_that_outlived_their_fold_are_deleted_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    names = [leave(store, truth, unit) for unit in halves(whole(store, CHUNK))]
    with monkeypatch.context() as patch:
        patch.setitem(fold.__globals__, "delete_parts", lambda folder, names: None)
        first = fold(store, CHUNK, names)
    assert len(list(store.run.parts.iterdir())) == 2
    assert Ledger.read(store).folded == {CHUNK}
    assert fold(store, CHUNK, names) == first
    assert list(store.run.parts.iterdir()) == []


def test_only_the_named_parts_are_deleted(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    other = leave(store, truth, whole(store, (0, 1)))
    fold(store, CHUNK, [leave(store, truth, whole(store, CHUNK))])
    assert [path.name for path in store.run.parts.iterdir()] == [str(other)]
