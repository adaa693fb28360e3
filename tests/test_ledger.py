"""The ledger: status and parts together are what is done; what is missing is an error."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from builders import (
    NEIGHBORS,
    RIDGE,
    Truth,
    all_chunks,
    halves,
    invent,
    leave,
    make_store,
    whole,
)

from hpc_sweep.choices import DONE, EMPTY, FAILED
from hpc_sweep.errors import StoreError
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.store import Folded, Ledger, PartName, Store, fold

CHUNK = (0, 0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def fold_one(store: Store, truth: Truth, chunk: Chunk = CHUNK) -> Folded:
    return fold(store, chunk, [leave(store, truth, whole(store, chunk))])


def status_file(store: Store, chunk: Chunk = CHUNK) -> Path:
    return store.chunk_file(store.arrays[-1], chunk)


# accounting


def test_nothing_is_done(tmp_path: Path) -> None:
    ledger = Ledger.read(make_store(tmp_path))
    assert not ledger.folded
    assert not ledger.parts
    assert ledger.covered(CHUNK) is None
    assert list(ledger.complete()) == []
    assert ledger.cells_done() == 0
    assert ledger.summary() == dict.fromkeys(ledger.summary(), 0) | {"pending": 12}


def test_folded_chunks_parts_and_the_rest(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    fold_one(store, truth)
    half = leave(store, truth, Unit((0, 1), 0, 1, 0, 3))
    thin = leave(store, truth, Unit((1, 0), 0, 3, 1, 2))
    ledger = Ledger.read(store)
    assert ledger.folded == {CHUNK}
    assert ledger.parts == {(0, 1): [half], (1, 0): [thin]}
    assert ledger.cells_done() == 6 * 3 + 3 + 3
    covered = ledger.covered((0, 1))
    assert covered is not None
    assert covered.tolist() == [[True] * 3, [False] * 3]
    covered = ledger.covered((1, 0))
    assert covered is not None
    assert covered.tolist() == [[False, True, False]] * 3
    assert ledger.covered((1, 1)) is None
    # a partition of which only some candidates are there is still pending
    assert ledger.summary()["done"] == 6 + 1
    assert ledger.summary()["pending"] == 12 - 7


def test_doubled_parts_count_once(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    for unit in (Unit(CHUNK, 0, 4, 0, 3), Unit(CHUNK, 2, 6, 0, 2), Unit(CHUNK, 3, 4, 1, 3)):
        leave(store, truth, unit)
    ledger = Ledger.read(store)
    assert ledger.cells_done() == 4 * 3 + 2 * 2
    assert list(ledger.complete()) == []


def test_complete_chunks_are_found(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    for unit in (*halves(whole(store, (0, 1))), Unit((1, 0), 0, 2, 0, 3)):
        leave(store, truth, unit)
    ledger = Ledger.read(store)
    assert list(ledger.complete()) == [(0, 1)]


def test_adding_parts_until_a_chunk_is_complete(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    ledger = Ledger.read(store)
    units = [Unit(CHUNK, 0, 4, 0, 3), Unit(CHUNK, 4, 6, 0, 1), Unit(CHUNK, 4, 6, 1, 3)]
    names = [PartName(store.header.id, unit, 1, "00000000") for unit in units]
    assert [ledger.add(name) for name in names] == [False, False, True]
    assert list(ledger.complete()) == [CHUNK]
    ledger.fold(CHUNK, Folded({"1": 5, "2": 1}))
    assert ledger.covered(CHUNK) is None
    assert list(ledger.complete()) == []
    assert ledger.cells_done() == 18
    assert ledger.summary()["done"] == 5
    assert ledger.summary()["failed"] == 1


def test_the_ledger_after_a_fold_is_the_one_that_is_read(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[RIDGE, NEIGHBORS])
    truth = invent(store)
    truth.status[0, 0] = EMPTY
    truth.status[0, 1] = FAILED
    truth.status[1, 1, 2] = FAILED
    ledger = Ledger.read(store)
    for chunk in all_chunks(store):
        name = leave(store, truth, whole(store, chunk))
        assert ledger.add(name)
        in_parts = Ledger.read(store)
        before = in_parts.summary(), in_parts.cells_done()
        ledger.fold(chunk, fold(store, chunk, [name]))
        again = Ledger.read(store)
        assert again.folded == ledger.folded
        assert again.counts == ledger.counts
        for found in (again, ledger):
            assert (found.summary(), found.cells_done()) == before
    expected = {"pending": 0, "done": 10, "failed": 1, "empty": 1}
    assert ledger.summary() == dict.fromkeys(ledger.summary(), 0) | expected


def test_parts_of_a_folded_chunk_are_passed_over(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    fold_one(store, truth)
    leave(store, truth, Unit(CHUNK, 0, 2, 0, 3))
    ledger = Ledger.read(store)
    assert not ledger.parts
    assert ledger.cells_done() == 18


def test_parts_of_another_store_are_passed_over(tmp_path: Path) -> None:
    first = make_store(tmp_path)
    leave(first, invent(first), whole(first, CHUNK))
    shutil.rmtree(first.path)
    assert not Ledger.read(make_store(tmp_path)).parts


def test_no_run_folder_is_no_parts(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    fold_one(store, invent(store))
    shutil.rmtree(store.run.path)
    assert Ledger.read(store).folded == {CHUNK}


# damage


def test_a_damaged_part_is_not_done(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    good, bad = (leave(store, truth, unit) for unit in halves(whole(store, CHUNK)))
    file = store.run.parts / str(bad)
    content = file.read_bytes()
    for damaged in (b"", content[:100], content[:-1], b"\0" + content[1:]):
        file.write_bytes(damaged)
        assert Ledger.read(store).parts == {CHUNK: [good]}


def test_a_damaged_status_is_not_done(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    fold_one(store, truth)
    file = status_file(store)
    content = file.read_bytes()
    flipped = [
        content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :]
        for i in range(len(content))
    ]
    for damaged in [*(content[:n] for n in range(len(content))), *flipped, bytes(len(content))]:
        file.write_bytes(damaged)
        assert store.read_status(CHUNK) is None, damaged
    assert not Ledger.read(store).folded
    file.write_bytes(content)
    assert Ledger.read(store).folded == {CHUNK}


def test_a_chunk_with_damaged_status_is_computed_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    fold_one(store, truth)
    status_file(store).write_bytes(b"")
    fold_one(store, truth)
    assert Ledger.read(store).folded == {CHUNK}
    np.testing.assert_array_equal(
        xr.open_zarr(store.path)["status"].values[:2, :3], truth.status[:2, :3]
    )


@pytest.mark.parametrize(
    "name", ["test_score", "best_index", "message", "partition_status", "best_param_alpha"]
)
def test_a_missing_file_under_a_done_status(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    for chunk in all_chunks(store):
        fold_one(store, truth, chunk)
    (array,) = (array for array in store.arrays if array.name == name)
    missing = store.chunk_file(array, (1, 0))
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(StoreError) as raised:
        Ledger.read(store)
    text = str(raised.value)
    assert f"{missing} is missing although its status says done (1 such files)" in text
    assert f"bring it back, or delete {status_file(store, (1, 0))}" in text
    missing.write_bytes(content)
    assert len(Ledger.read(store).folded) == 4


def test_the_remedy_helps(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    fold_one(store, truth)
    fold_one(store, truth, (1, 0))
    store.chunk_file(store.arrays[0], (1, 0)).unlink()
    status_file(store, (1, 0)).unlink()
    assert Ledger.read(store).folded == {CHUNK}
    fold_one(store, truth, (1, 0))
    assert Ledger.read(store).folded == {CHUNK, (1, 0)}


def test_all_missing_files_are_counted(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    fold_one(store, truth)
    fold_one(store, truth, (1, 1))
    for array in store.arrays[:-1]:
        store.chunk_file(array, (1, 1)).unlink()
    with pytest.raises(StoreError, match=rf"\({len(store.arrays) - 1} such files\)"):
        Ledger.read(store)


def test_a_missing_status_alone_is_pending_and_no_error(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    fold_one(store, invent(store))
    status_file(store).unlink()
    assert not Ledger.read(store).folded


@pytest.mark.parametrize("name", ["test_score", "best_model"])
def test_a_missing_folder_under_a_done_status(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path)
    fold_one(store, invent(store))
    shutil.rmtree(store.path / name)
    with pytest.raises(StoreError, match=f"{name}.* is missing"):
        Ledger.read(store)


@pytest.mark.parametrize("name", ["status", "test_score"])
def test_missing_metadata_of_an_array(tmp_path: Path, name: str) -> None:
    """Otherwise all chunks would silently count as pending."""
    store = make_store(tmp_path)
    fold_one(store, invent(store))
    (store.path / name / "zarr.json").unlink()
    with pytest.raises(StoreError, match=rf"{name}/zarr\.json is missing"):
        Ledger.read(store)


@pytest.mark.parametrize("name", ["latitude", "candidate_json", "param_alpha", "split"])
@pytest.mark.parametrize("folded", [True, False])
def test_missing_coordinates_are_never_a_number(tmp_path: Path, name: str, folded: bool) -> None:
    coordinates = xr.Dataset(coords={"latitude": [3, 2, 1]})
    store = make_store(tmp_path, coordinates=coordinates)
    if folded:
        fold_one(store, invent(store))
    file = "0" if name == "candidate_json" else "c.0"  # text has other names
    (store.path / name / file).unlink()
    with pytest.raises(StoreError, match=rf"{name}/{re.escape(file)} is missing"):
        Ledger.read(store)


@pytest.mark.parametrize("name", ["test_score", "best_index", "message", "latitude", "model"])
def test_damaged_results_are_an_error_and_never_a_number(tmp_path: Path, name: str) -> None:
    coordinates = xr.Dataset(coords={"latitude": [3, 2, 1]})
    store = make_store(tmp_path, (3, 4), (3, 4), coordinates=coordinates)
    fold_one(store, invent(store))
    (file,) = (each for each in (store.path / name).iterdir() if each.name != "zarr.json")
    content = file.read_bytes()
    for damaged in (b"", content[:-1], content[: len(content) // 2], b"\0" + content[1:]):
        file.write_bytes(damaged)
        with pytest.raises((ValueError, RuntimeError)):
            store.dataset().load()


def test_a_state_that_is_half_done_is_not_folded(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    fold_one(store, invent(store))
    status = np.full((2, 3, 3), DONE, dtype=np.int8)
    status[1, 2, 0] = 0
    store.write(store.arrays[-1], CHUNK, status)
    ledger = Ledger.read(store)
    assert not ledger.folded
    covered = ledger.covered(CHUNK)
    assert covered is not None
    np.testing.assert_array_equal(np.argwhere(~covered), [[5, 0]])
