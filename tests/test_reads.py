"""What is read: the plan's bytes are those that are counted, and few where labels are compact."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from hpc_sweep.cli.plan import plan_facts, plan_text
from hpc_sweep.plan.reading import Reading
from hpc_sweep.prepare import Prepared, create, prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.work.bench import open_bench
from hpc_sweep.work.evaluation import Partition, partitions_of
from hpc_sweep.work.remains import Loss

SIZES = {"y": 24, "x": 20, "time": 60}
CHUNKS = {"y": 6, "x": 4, "time": 30}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a data set of 4 × 5 × 2 chunks; read only."""
    rng = np.random.default_rng(0)
    dims = ("y", "x", "time")

    def variable(*names: str) -> xr.DataArray:
        return xr.DataArray(rng.normal(size=[SIZES[name] for name in names]), dims=names)

    y, x = np.indices((SIZES["y"], SIZES["x"]))
    data = xr.Dataset(
        {
            "a": variable(*dims),
            "height": variable("y", "x"),
            "hour": variable("time"),
            "t": variable(*dims).astype("float32"),
            "compact": (("y", "x"), y // 12 * 10 + x // 4),
            "scattered": (("y", "x"), rng.integers(0, 6, (SIZES["y"], SIZES["x"]))),
            "halves": (("y", "x"), np.where(x < 10, 0, 1)),
        },
        coords={"time": np.datetime64("2019-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h")},
    )
    path = str(tmp_path_factory.mktemp("reads") / "in.zarr")
    chunks = {"height": {"y": 5, "x": 20}}
    encoding = {
        name: {"chunks": [chunks.get(str(name), CHUNKS)[str(dim)] for dim in array.dims]}
        for name, array in data.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    return path


def prepared(
    store: str, folder: Path, partition_by: Any, features: Any = ("a", "hour"), **cluster: Any
) -> Prepared:
    spec = {
        "data": {
            "store": store,
            "features": list(features),
            "target": "t",
            "partition_by": partition_by,
        },
        "models": [{"estimator": "sklearn.linear_model.Ridge"}],
        "search": {"cv": 2},
        "cluster": {
            "kind": "local",
            "workers": 1,
            "memory": "1GB",
            "performance_report": False,
            **cluster,
        },
        "output": {"store": str(folder / "out.zarr")},
    }
    return prepare(load_spec(spec))


def counted_reads(made: Prepared, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Read all units as a worker does, and count how often each chunk is asked for."""
    create(made)
    open_bench(str(made.spec.output.store), made.spec.model_dump_json())
    keys: Counter[str] = Counter()
    get = zarr.storage.LocalStore.get

    async def counting(self: Any, key: str, *more: Any, **options: Any) -> Any:
        if "/c/" in key and str(self.root) == made.spec.data.store:
            keys[key] += 1
        return await get(self, key, *more, **options)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counting)
    assert not any(isinstance(each.samples, Loss) for each in all_read(made))
    monkeypatch.undo()
    return keys


def all_read(made: Prepared) -> Iterator[Partition]:
    """Read all units as a worker does."""
    bench = open_bench(str(made.spec.output.store), made.spec.model_dump_json())
    for chunk in made.plan.result_chunks():
        for unit in made.plan.units(chunk):
            yield from partitions_of(bench, unit)


BYTES = {"hour": 30 * 8, "a": 6 * 4 * 30 * 8, "t": 6 * 4 * 30 * 4, "height": 5 * 20 * 8}
CASES: list[Any] = [
    ["y", "x"],
    {"y": 4, "x": 3},
    {"time": 7},
    "compact",
    "scattered",
    ["scattered", {"time": "hour"}],
    {"time": "date"},
    ["y", {"time": {"bins": 3}}],
    [],
]


@pytest.mark.parametrize("workers", [1, 7])
@pytest.mark.parametrize("partition_by", CASES, ids=str)
def test_the_bytes_of_the_plan_are_counted(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partition_by: Any, workers: int
) -> None:
    features = ["a", "hour"] if partition_by == ["y", "x"] else ["a", "height", "hour"]
    made = prepared(store, tmp_path, partition_by, features, workers=workers)
    keys = counted_reads(made, monkeypatch)
    source = made.source
    cut = {dim for axis in source.axes for dim in axis.dims}
    common = [n for n in source.variables if cut and not cut & {*source.dataset[n].dims}]
    found = 0
    for key, count in keys.items():
        name = key.split("/")[0]
        if name in common:
            assert count == 1
        else:
            found += count * BYTES[name]
    assert found == pytest.approx(made.plan.read_factor * source.reads.total_bytes)


@pytest.mark.parametrize(
    "partition_by", [["y", "x"], {"y": 4, "x": 4}, {"y": 9, "x": 5}, "compact"], ids=str
)
def test_compact_partitions_are_read_once(store: str, tmp_path: Path, partition_by: Any) -> None:
    made = prepared(store, tmp_path, partition_by)
    assert Reading(made.plan.workload, made.plan.chunks).factor(10**6) <= 1.05


def test_compact_labels_are_read_one_by_one(store: str, tmp_path: Path) -> None:
    made = prepared(store, tmp_path, "compact")
    assert made.source.grid.read_chunks == (1,)
    assert made.plan.read_factor == 1.0


def test_the_plan_says_how_labels_are_read_and_why(store: str, tmp_path: Path) -> None:
    scattered = prepared(store, tmp_path, "scattered")
    facts = plan_facts(scattered)
    assert facts["labels"] == {
        "scattered": {
            "one_by_one": False,
            "one_by_one_factor": 6.0,
            "brought_together": False,
            "without_label": 0,
            "of": 480,
        }
    }
    text = plan_text(scattered, facts)
    assert "scattered read at once as far as a unit has them" in text
    assert "(one by one reads 6 times as much as all at once)" in text
    bins = prepared(store, tmp_path, {"compact": {"bins": [0, 1, 14]}})
    assert "compact_bins read one by one" not in plan_text(bins, plan_facts(bins))
    assert "48 of 480 places have none" in plan_text(bins, plan_facts(bins))
    compact = prepared(store, tmp_path, "compact")
    assert "compact read one by one" in plan_text(compact, plan_facts(compact))
    pixels = prepared(store, tmp_path, ["y", "x"])
    assert "labels:" not in plan_text(pixels, plan_facts(pixels))


def test_scattered_labels_are_read_together(store: str, tmp_path: Path) -> None:
    made = prepared(store, tmp_path, "scattered")
    assert made.source.grid.read_chunks == (6,)
    assert made.plan.read_factor > 3, "their units are too few, so they are split"


@pytest.mark.parametrize("workers", [1, 2, 9])
@pytest.mark.parametrize(
    ("partition_by", "victim", "damaged"),
    [
        ({"y": 4, "x": 20}, "a/c/0/3/1", {(0, 0), (1, 0)}),  # rows 0 to 5
        ("compact", "t/c/2/4/0", {(9,)}),
        ("halves", "a/c/1/0/0", {(0,)}),
        (["y", "x"], "a/c/3/4/0", {(y, x) for y in range(18, 24) for x in range(16, 20)}),
    ],
)
def test_a_damaged_chunk_fails_those_that_need_it(
    store: str, tmp_path: Path, partition_by: Any, victim: str, damaged: set[Any], workers: int
) -> None:
    """Whatever the units are."""
    copy = tmp_path / "damaged.zarr"
    shutil.copytree(store, copy)
    (copy / victim).write_bytes(b"no chunk at all")
    made = prepared(str(copy), tmp_path, partition_by, workers=workers)
    create(made)
    found = {}
    for each in all_read(made):
        if isinstance(each.samples, Loss):
            found[tuple(each.index.tolist())] = each.samples.reason
    assert set(found) == damaged
    name, _, index = victim.partition("/c/")
    words = f"chunk {index.replace('/', '.')} of '{name}' is damaged"
    assert all(words in text for text in found.values())
