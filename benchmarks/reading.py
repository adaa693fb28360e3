"""What sweeps over one data set read, and what memory their workers take, by kind of partition.

    python benchmarks/reading.py --store era5_uk_t2m.zarr [--json FILE]

See the README beside this file for what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr
import zarr

from hpc_sweep.plan import format_bytes
from hpc_sweep.prepare import PeersWay, Prepared, create, prepare
from hpc_sweep.source import Block, block_reading
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Store, run_folder
from hpc_sweep.sweep import execute
from hpc_sweep.work import Context, open_bench
from hpc_sweep.work.bench import current_bench
from hpc_sweep.work.evaluation import partitions_of
from hpc_sweep.work.peers import read_box

FEATURES = ["t2m_now", "t2m_lag1", "t2m_lag2", "t2m_lag24", "t2m_around", "hour_sin", "hour_cos"]
KINDS: dict[str, Any] = {
    "pixels": ["latitude", "longitude"],
    "4 × 4 tiles": {"latitude": 4, "longitude": 4},
    "zones": "zone",
    "all in one": [],
    "one hour a chunk, pixels": ["latitude", "longitude"],
    "one hour a chunk, pixels, p2p": ["latitude", "longitude"],
    "one hour a chunk, 100 scattered labels": "scattered",
    "generated, 1,000 scattered labels": "scattered",
    "generated, 1,000 scattered labels × quarters": ["scattered", {"time": "quarter"}],
    "generated, 1,000 scattered labels, no copy": "scattered",
}
GENERATED = {"time": 1000, "latitude": 150, "longitude": 150}
BASELINE_BYTES = 400_000_000


@dataclass(frozen=True)
class Row:
    """What one kind of partition costs.

    Attributes
    ----------
    kind : str
        Key of `KINDS`.
    factor : float
        Bytes of chunks that units ask for ÷ bytes of the data, counted.
    planned : float
        The same as the plan foresaw; of the copy where one is made.
    peak_bytes, limit_bytes : int
        Most memory of a worker; 2 × a unit's arrays + 400 MB.
    seconds : float
        The sweep's, with the start of its workers, and the copy where one is made.
    """

    kind: str
    factor: float
    planned: float
    peak_bytes: int
    limit_bytes: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", type=Path, required=True, metavar="ZARR")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        maps = one_map_a_chunk(options.store, Path(folder) / "maps.zarr")
        made = generated(Path(folder) / "generated.zarr")
        stores = {"one hour": maps, "generated": made}
        for number, (kind, partition_by) in enumerate(KINDS.items()):
            store = stores.get(kind.partition(" a chunk")[0].partition(",")[0], options.store)
            spec = spec_of(store.absolute(), partition_by, f"{folder}/{number}")
            if store == made:
                spec["data"] |= {"features": ["wet", "green"], "target": "slope"}
            ways = {"no copy": "never", "p2p": "p2p"}
            spec["cluster"]["rechunk"] = ways.get(kind.rpartition(", ")[2], "auto")
            with whatever_it_saves() if "scattered" in kind else nullcontext():
                rows.append(measure(kind, spec))
    print("| partitions | read ÷ size | planned | peak of a worker | 2 × unit + 400 MB | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row.kind} | {row.factor:.2f} | {row.planned:.2f} | {format_bytes(row.peak_bytes)} "
            f"| {format_bytes(row.limit_bytes)} | {row.seconds:.1f} |"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


def whatever_it_saves() -> AbstractContextManager[Any]:
    """Context in which a copy is made wherever one is possible; two workers have little to gain."""
    return mock.patch("hpc_sweep.prepare.rechunking.LEAST_SAVED_S", -math.inf)


def one_map_a_chunk(store: Path, place: Path) -> Path:
    """Write a data set anew, each hour's map a chunk of its own, with scattered labels."""
    data = xr.open_zarr(store, chunks=None).load().drop_encoding()
    data = data.transpose("time", "latitude", "longitude")
    encoding = {
        name: {"chunks": tuple(1 if dim == "time" else n for dim, n in array.sizes.items())}
        for name, array in data.items()
        if array.ndim == 3
    }
    labelled(data, 100).to_zarr(place, encoding=encoding, consolidated=False)
    return place


def generated(place: Path) -> Path:
    """Write 270 MB of noise in chunks of whole time series, with scattered labels."""
    rng = np.random.default_rng(1)
    shape = tuple(GENERATED.values())
    variables = {
        name: (tuple(GENERATED), rng.standard_normal(shape, dtype="float32"))
        for name in ("wet", "green", "slope")
    }
    hours = np.arange(GENERATED["time"]) * np.timedelta64(6, "h")
    data = xr.Dataset(variables, {"time": np.datetime64("2019-01-01", "ns") + hours})
    encoding = {name: {"chunks": (GENERATED["time"], 15, 15)} for name in variables}
    labelled(data, 1000).to_zarr(place, encoding=encoding, consolidated=False)
    return place


def labelled(data: xr.Dataset, n_labels: int) -> xr.Dataset:
    """Return a data set with that many labels at random places."""
    shape = (data.sizes["latitude"], data.sizes["longitude"])
    labels = np.random.default_rng(0).integers(0, n_labels, shape)
    return data.assign(scattered=(("latitude", "longitude"), labels))


def spec_of(store: Path, partition_by: Any, place: str) -> dict[str, Any]:
    """Return a sweep that searches little."""
    return {
        "data": {
            "store": str(store),
            "features": FEATURES,
            "target": "t2m_next",
            "partition_by": partition_by,
        },
        "models": [
            {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1.0, 10.0]}}
        ],
        "search": {"cv": 3},
        "cluster": {"kind": "local", "workers": 2},
        "output": {"store": f"{place}.zarr"},
    }


def measure(kind: str, spec: dict[str, Any]) -> Row:
    """Count what all units of a sweep read, in this process; then run it."""
    elsewhere = {"store": f"{spec['output']['store']}.counted"}
    counted = prepare(load_spec({**spec, "output": elsewhere}))
    factor = read_factor(counted)
    begin = time.perf_counter()
    store = execute(load_spec(spec)).store
    took = time.perf_counter() - begin
    (run,) = Store.open(store.path).header.runs
    work = counted.plan.workload
    largest = min(counted.plan.unit_partitions, math.prod(counted.plan.chunks))
    return Row(
        kind,
        factor,
        counted.plan.read_factor,
        run["came"]["memory_bytes"],
        max(2 * largest * work.arrays_bytes + BASELINE_BYTES, copying_bytes(counted)),
        took,
    )


def copying_bytes(made: Prepared) -> int:
    """Return what the plan allows a worker for making a copy; 0 without one."""
    return 0 if made.rechunked is None else made.rechunked.memory_bytes


def read_factor(made: Prepared) -> float:
    """Return bytes of the source's chunks that are asked for, by the size of the data."""
    direct = made.source.direct
    names = direct.reading.sources(direct.variables)
    stored = zarr.open_group(made.spec.data.stores[0], mode="r")
    sizes = {n: math.prod(a.chunks) * a.dtype.itemsize for n, a in stored.arrays()}
    whole = sum(math.prod(stored[n].cdata_shape) * sizes[n] for n in names)
    created = create(made)
    created.run.make()
    bench = open_bench(str(created.path), made.spec.model_dump_json())
    with counting(made.spec.data.stores[0]) as reads:
        way = None if made.rechunked is None else made.rechunked.by_peers
        if way is not None:
            bench = replace(bench, reading=block_reading(bench.source, boxes_of(made, way)))
        elif made.rechunked is not None:
            source = made.rechunked.source
            source.copy.begin(source.streams)
            for _, slab in list(source.copy.open_slabs()):
                source.copy_slab(slab)
            source.copy.end()
            bench = current_bench(str(created.path), made.spec.model_dump_json())
        for chunk in made.plan.result_chunks():
            for unit in made.plan.units(chunk):
                for _ in partitions_of(bench, unit):
                    pass
    if made.copy is not None:
        made.copy.remove()
    return sum(count * sizes[name] for name, count in reads.items()) / whole


def boxes_of(made: Prepared, way: PeersWay) -> list[tuple[Block, Any]]:
    """Return what workers read before they rechunk it among themselves."""
    lease = str(run_folder(made.spec.output.store).lease)
    text = made.spec.model_dump_json()
    context = Context(made.spec.output.store, text, "", 60.0, {}, lease, False)
    boxes = []
    for layout in way.layouts:
        for index in np.ndindex(*map(len, layout.read_starts)):
            starts = zip(layout.read_starts, index, strict=True)
            block = Block(layout.name, index, tuple(each[i] for each, i in starts))
            boxes.append((block, read_box(context, layout, index)))
    return boxes


@contextmanager
def counting(store: str) -> Iterator[Counter[str]]:
    """Count chunks of variables that are fetched from a local store."""
    reads: Counter[str] = Counter()
    get = zarr.storage.LocalStore.get

    async def counted(self: Any, key: str, *more: Any, **options: Any) -> Any:
        if "/c" in key and str(self.root) == str(store):
            reads[key.split("/")[0]] += 1
        return await get(self, key, *more, **options)

    zarr.storage.LocalStore.get = counted
    try:
        yield reads
    finally:
        zarr.storage.LocalStore.get = get


if __name__ == "__main__":
    sys.exit(main())
