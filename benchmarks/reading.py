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
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from hpc_sweep.plan import format_bytes
from hpc_sweep.prepare import Prepared, create, prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Store
from hpc_sweep.sweep import execute
from hpc_sweep.work import open_bench
from hpc_sweep.work.evaluation import partitions_of

FEATURES = ["t2m_now", "t2m_lag1", "t2m_lag2", "t2m_lag24", "t2m_around", "hour_sin", "hour_cos"]
KINDS: dict[str, Any] = {
    "pixels": ["latitude", "longitude"],
    "4 × 4 tiles": {"latitude": 4, "longitude": 4},
    "zones": "zone",
    "all in one": [],
    "one hour a chunk, pixels": ["latitude", "longitude"],
}
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
        The same as the plan foresaw.
    peak_bytes, limit_bytes : int
        Most memory of a worker; 2 × a unit's arrays + 400 MB.
    seconds : float
        The sweep's, from the first worker on, with the copy where one is made.
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
        for number, (kind, partition_by) in enumerate(KINDS.items()):
            store = maps if kind.startswith("one hour") else options.store.absolute()
            rows.append(measure(kind, spec_of(store, partition_by, f"{folder}/{number}")))
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


def one_map_a_chunk(store: Path, place: Path) -> Path:
    """Write a data set anew, each hour's map a chunk of its own."""
    data = xr.open_zarr(store, chunks=None).load().drop_encoding()
    data = data.transpose("time", "latitude", "longitude")
    encoding = {
        name: {"chunks": tuple(1 if dim == "time" else n for dim, n in array.sizes.items())}
        for name, array in data.items()
        if array.ndim == 3
    }
    data.to_zarr(place, encoding=encoding, consolidated=False)
    return place


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
    store = execute(load_spec(spec)).store
    (run,) = Store.open(store.path).header.runs
    work = counted.plan.workload
    largest = min(counted.plan.unit_partitions, math.prod(counted.plan.chunks))
    return Row(
        kind,
        factor,
        counted.plan.read_factor,
        run["came"]["memory_bytes"],
        2 * largest * work.arrays_bytes + BASELINE_BYTES,
        run["came"]["seconds"],
    )


def read_factor(made: Prepared) -> float:
    """Return bytes of the source's chunks that are asked for, by the size of the data."""
    names = made.source.reading.sources(made.source.variables)
    stored = zarr.open_group(made.spec.data.stores[0], mode="r")
    sizes = {n: math.prod(a.chunks) * a.dtype.itemsize for n, a in stored.arrays()}
    whole = sum(math.prod(stored[n].cdata_shape) * sizes[n] for n in names)
    created = create(made)
    created.run.make()
    with counting(made.spec.data.stores[0]) as reads:
        if made.copy is not None:
            made.copy.begin(made.source.dataset)
            for slab in list(made.copy.open_slabs()):
                made.copy.write(slab, made.source.dataset)
            made.copy.end()
        bench = open_bench(str(created.path), made.spec.model_dump_json())
        for chunk in made.plan.result_chunks():
            for unit in made.plan.units(chunk):
                for _ in partitions_of(bench, unit):
                    pass
    if made.copy is not None:
        made.copy.remove()
    return sum(count * sizes[name] for name, count in reads.items()) / whole


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
