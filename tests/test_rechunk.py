"""Data with a map in each chunk: copied into another layout first, with any stop on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from builders import one_map_a_chunk
from conftest import Spec, equal_stores, hpc_sweep, small_spec

from hpc_sweep import sweep
from hpc_sweep.errors import StoreError
from hpc_sweep.prepare import Prepared, prepare
from hpc_sweep.source import find_copy
from hpc_sweep.spec import load_spec
from hpc_sweep.store import read_events, run_folder
from hpc_sweep.sweep import execute
from hpc_sweep.work import Slabs

SLAB = 7 * 48 * 4
"""Bytes of seven maps."""


@pytest.fixture
def maps(data: Path, tmp_path: Path) -> Path:
    """Return `data` with one map in each chunk."""
    return one_map_a_chunk(data, tmp_path / "maps.zarr")


@pytest.fixture
def spec(maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """A sweep of it that makes a copy though the data is small: nine slabs of each variable."""
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.LEAST_SAVED_S", -1.0)
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.SLAB_BYTES", SLAB)
    monkeypatch.setattr("hpc_sweep.source.tiling.TILE_BYTES", (4000, 4000))
    spec = small_spec(maps, tmp_path / "results.zarr")
    return {**spec, "cluster": {**spec["cluster"], "rechunk": "copy"}}


def begun(spec: Spec, count: int) -> Prepared:
    """Return a sweep of whose copy some slabs are there."""
    made = prepare(load_spec(spec))
    assert made.rechunked is not None
    source = made.rechunked.source
    run_folder(spec["output"]["store"]).make()
    source.copy.begin(source.streams)
    for _, slab in list(source.copy.open_slabs())[:count]:
        source.copy_slab(slab)
    return made


def events(spec: Spec) -> list[dict[str, Any]]:
    return list(read_events(run_folder(spec["output"]["store"]).events))


def test_results_are_those_of_data_that_is_chunked_well(
    spec: Spec, data: Path, tmp_path: Path
) -> None:
    well = execute(load_spec(small_spec(data, tmp_path / "well.zarr"))).store
    copied = execute(load_spec(spec)).store
    assert [e["slabs"] for e in events(spec) if e["event"] == "rechunking"] == [27]
    assert not copied.run.copy.exists(), "the copy is there no longer than the sweep goes on"
    left, right = (xr.open_zarr(store.path, chunks=None).load() for store in (copied, well))
    for name in set(left.data_vars) - {"fit_time", "score_time"}:
        np.testing.assert_array_equal(left[name], right[name])


def test_a_run_from_python_logs_it(spec: Spec, caplog: pytest.LogCaptureFixture) -> None:
    """It is no warning: these are errors here, and may be elsewhere."""
    results = sweep.run(spec)
    assert (results["partition_status"] != 0).all()
    (record,) = [each for each in caplog.records if each.name == "hpc_sweep"]
    assert record.getMessage().startswith("rechunking data into")


def test_each_chunk_is_read_once(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(load_spec(spec))
    copy = made.copy
    assert copy is not None
    assert made.plan.read_factor == 1
    assert made.rechunked is not None
    assert made.rechunked.read_factor_directly > 3
    copy.folder.parent.mkdir()
    reads: Counter[str] = Counter()
    get = zarr.storage.LocalStore.get

    async def counting(self: Any, key: str, *more: Any, **options: Any) -> Any:
        if "maps" in str(self.root) and "/c/" in key:
            reads[key] += 1
        return await get(self, key, *more, **options)

    source = made.rechunked.source
    copy.begin(source.streams)
    monkeypatch.setattr(zarr.storage.LocalStore, "get", counting)
    for _, slab in copy.open_slabs():
        source.copy_slab(slab)
    assert len(reads) == 3 * 60
    assert set(reads.values()) == {1}
    copy.end()
    opened, direct = source.dataset, source.direct.dataset
    for name in ("wet", "green", "slope"):
        np.testing.assert_array_equal(opened[name], direct[name])
        assert opened[name].dims == direct[name].dims
        assert opened[name].dtype == direct[name].dtype


def test_a_copy_goes_on_where_it_was_stopped(
    spec: Spec, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begun(spec, 10)
    assert made.copy is not None
    # what a killed writer leaves of a shard has another name
    shard = made.copy.file("wet", 3)
    shard.rename(shard.with_name(f"{shard.name}.0123.partial"))
    assert Slabs(made.copy).n_open == 18
    execute(load_spec(spec))
    started = [e["unit"] for e in events(spec) if e["event"] == "slab_started"]
    assert len(started) == len(set(started)) == 18
    well = execute(load_spec(small_spec(data, tmp_path / "well.zarr"))).store
    first, second = (Path(spec["output"]["store"]), well.path)
    left, right = (xr.open_zarr(path, chunks=None).load() for path in (first, second))
    np.testing.assert_array_equal(left["test_score"], right["test_score"])


def test_a_run_that_stops_after_its_copy_uses_it_again(
    spec: Spec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = execute(load_spec(spec), on_start=lambda *_: None).store.path
    spec = {**spec, "output": {"store": str(tmp_path / "stopped.zarr")}}
    with monkeypatch.context() as patch:
        patch.setattr("hpc_sweep.drive.Drive._unit_done", _stop)
        with pytest.raises(RuntimeError, match="for the test"):
            execute(load_spec(spec))
    copy = find_copy(run_folder(spec["output"]["store"]).copy)
    assert copy is not None
    assert not copy.is_whole, "it stopped at the first slab"
    with monkeypatch.context() as patch:
        patch.setattr("hpc_sweep.drive.Drive._fold", _stop)
        with pytest.raises(RuntimeError, match="for the test"):
            execute(load_spec(spec))
    assert copy.is_whole
    before = len(events(spec))
    execute(load_spec(spec))
    assert not any("slab" in e["event"] for e in events(spec)[before:])
    assert not copy.folder.exists()
    equal_stores(Path(spec["output"]["store"]), whole)


def _stop(*_: Any) -> None:
    raise RuntimeError("for the test")


def test_a_copy_of_other_data_is_not_used(spec: Spec, maps: Path) -> None:
    made = begun(spec, 27)
    assert made.copy is not None
    made.copy.end()
    assert prepare(load_spec(spec)).rechunked.is_whole  # type: ignore[union-attr]
    zarr.open_array(maps / "wet", mode="r+").attrs["units"] = "mm"
    other = prepare(load_spec(spec)).rechunked
    assert other is not None
    assert not other.is_whole
    other.copy.begin(other.source.streams)
    assert not other.copy.is_whole
    assert len(list(other.copy.open_slabs())) == 27


def test_a_damaged_chunk_is_told_and_nothing_is_lost(spec: Spec, maps: Path) -> None:
    (maps / "green" / "c" / "20" / "0" / "0").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=r"time 14 to 20 of 'green' cannot be read"):
        execute(load_spec(spec))
    copy = find_copy(run_folder(spec["output"]["store"]).copy)
    assert copy is not None
    assert not copy.is_whole


def test_plan_tells_of_it_and_it_can_be_refused(
    spec: Spec, write_spec: Callable[[Spec], Path], data: Path, tmp_path: Path
) -> None:
    made = prepare(load_spec({**spec, "cluster": {**spec["cluster"], "rechunk": "never"}}))
    assert made.copy is None
    assert made.plan.read_factor > 3
    well = prepare(load_spec(small_spec(data, tmp_path / "well.zarr")))
    assert well.copy is None, "no variable has its chunks along samples"
    assert prepare(load_spec(spec), drivers=2).copy is None


def test_small_data_is_read_as_it_is(maps: Path, tmp_path: Path) -> None:
    spec = small_spec(maps, tmp_path / "results.zarr")
    assert prepare(load_spec(spec)).copy is None


def test_the_command_shows_it(
    maps: Path, tmp_path: Path, write_spec: Callable[[Spec], Path]
) -> None:
    """Data so long that reading it directly would take longer."""
    long = xr.open_zarr(maps, chunks=None, consolidated=False)
    spec = small_spec(tmp_path / "long.zarr", tmp_path / "results.zarr")
    times = np.datetime64("2019-03-01", "ns") + np.arange(1200) * np.timedelta64(1, "h")
    made = xr.concat([long] * 20, "time", data_vars="minimal").assign_coords(time=times)
    encoding = {n: {"chunks": (1, 6, 8)} for n in ("wet", "green", "slope")}
    made.drop_encoding().to_zarr(tmp_path / "long.zarr", encoding=encoding, consolidated=False)
    file = write_spec(spec)
    shown = hpc_sweep("plan", file)
    assert "variables are copied into the run folder first" in shown.stdout, shown.stderr
    facts = json.loads(hpc_sweep("plan", file, "--json").stdout)["rechunk"]
    assert facts["way"] == "copy"
    assert facts["read_factor_directly"] > 3
    assert sorted(facts["variables"]) == ["green", "slope", "wet"]
    assert not (tmp_path / "results.zarr").exists()
