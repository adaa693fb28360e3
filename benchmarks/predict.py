"""Predictions of growing data: seconds and memory beside ParallelPostFit and xarray.map_blocks.

python benchmarks/predict.py [--steps 1 4 16] [--memory SIZE] [--repeats N] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))

WORKERS = 2
SIDE, TILE, HOURS = 40, 20, 1000
"""Pixels along each side, of a chunk, and hours of a chunk."""

ROWS = 250_000
"""Of a chunk of the table-like data that one model predicts."""

FEATURES = ("f0", "f1", "f2", "f3")


def main(arguments: list[str] | None = None) -> int:
    """Make data and models, predict in turns, and print seconds, memory and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 4, 16], help="chunks along time (1 4 16)"
    )
    parser.add_argument("--memory", default="1GB", help="of each of the two workers (1GB)")
    parser.add_argument("--repeats", type=int, default=1, help="of each size (1)")
    parser.add_argument("--folder", type=Path, help="where data and results are written")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args(arguments)
    figures = []
    with tempfile.TemporaryDirectory(prefix="predict-", dir=options.folder) as name:
        folder = Path(name)
        for case in (Pixels(folder), Whole(folder)):
            case.sweep()
            for steps in options.steps:
                case.generate(steps)
                for _ in range(options.repeats):
                    ours = measured(case.ours, options.memory)
                    peer = measured(case.peer, options.memory)
                    case.compare()
                    figures.append(shown(case, steps, ours, peer))
    for case in ("pixels", "whole"):
        ratios = [each["ratio"] for each in figures if each["case"] == case]
        print(f"{case}: {statistics.median(ratios):.2f} times the peer's time (median of all)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def shown(case: Case, steps: int, ours: Figures, peer: Figures) -> dict[str, Any]:
    """Print a row, and return it."""
    row = {
        "case": case.name,
        "peer": case.peer_name,
        "input_mb": round(case.input_bytes / 1e6),
        "ours_s": round(ours.seconds, 2),
        "peer_s": round(peer.seconds, 2),
        "ratio": round(ours.seconds / peer.seconds, 2),
        "ours_mb_per_s": round(case.input_bytes / 1e6 / ours.seconds),
        "ours_worker_mb": ours.worker_mb,
        "peer_worker_mb": peer.worker_mb,
        "ours_driver_mb": ours.driver_mb,
        "steps": steps,
    }
    print(
        f"{row['case']} {row['input_mb']:,} MB: ours {row['ours_s']} s and {row['ours_worker_mb']} "
        f"MB a worker, {row['peer']} {row['peer_s']} s and {row['peer_worker_mb']} MB; "
        f"ratio {row['ratio']}",
        flush=True,
    )
    return row


class Figures:
    """What one run took.

    Attributes
    ----------
    seconds : float
        From data and models on disk to predictions on disk.
    worker_mb, driver_mb : int
        The largest resident memory of a worker, and of this process.
    """

    def __init__(self, seconds: float, worker_mb: int, driver_mb: int) -> None:
        self.seconds, self.worker_mb, self.driver_mb = seconds, worker_mb, driver_mb


def measured(work: Callable[[Any], None], memory: str) -> Figures:
    """Do something on a fresh cluster whose workers have made their imports."""
    with cluster(memory) as client, Memory(client) as peaks:
        begin = time.perf_counter()
        work(client)
        seconds = time.perf_counter() - begin
    return Figures(seconds, peaks.worker_mb, peaks.driver_mb)


@contextlib.contextmanager
def cluster(memory: str) -> Iterator[Any]:
    """Context with a client of a local cluster."""
    from distributed import Client, LocalCluster

    from hpc_sweep.clusters import settings

    def imports() -> None:
        import dask_ml.wrappers  # noqa: F401

        import hpc_sweep.prediction  # noqa: F401

    options = {"threads_per_worker": 1, "memory_limit": memory, "dashboard_address": None}
    with settings(), LocalCluster(n_workers=WORKERS, **options) as made, Client(made) as client:
        client.wait_for_workers(WORKERS)
        client.run(imports)
        yield client


class Case:
    """A sweep, data to predict, and who else can do it."""

    name = peer_name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.store, self.data = self.folder / "results.zarr", self.folder / "data.zarr"
        self.out = self.folder / "out.zarr"
        self.peer_out = self.folder / "peer.zarr"

    def ours(self, client: Any) -> None:
        """Predict with this package."""
        import hpc_sweep

        remove(self.out, self.out.with_name("out.zarr.run"))
        address = client.scheduler.address
        hpc_sweep.predict(
            self.store,
            self.data,
            self.out,
            ["cluster.kind=external", f"cluster.address={address}", "cluster.security=none"],
        )

    def models(self) -> list[Any]:
        """Return all models, as the peer is given them."""
        import numpy as np

        from hpc_sweep.models import open_models
        from hpc_sweep.store import Store

        store = Store.open(self.store)
        places = np.indices(store.grid.shape).reshape(len(store.grid.dims), store.grid.size).T
        return open_models(store).of(places)

    def compare(self) -> None:
        """Fail unless both have predicted the same."""
        import numpy as np
        import xarray as xr

        ours, peer = (
            xr.open_zarr(path, consolidated=False)["y"] for path in (self.out, self.peer_out)
        )
        for part in (slice(0, 100), slice(-100, None)):
            last = {ours.dims[-1]: part}
            np.testing.assert_allclose(ours.isel(last), peer.isel(last), rtol=1e-5, atol=1e-6)


class Pixels(Case):
    """One ridge for each of 1,600 pixels."""

    name, peer_name = "pixels", "xarray.map_blocks"

    def sweep(self) -> None:
        """Search for each pixel, on a few hundred samples."""
        import hpc_sweep

        self._write(self.folder / "train.zarr", 300, target=True)
        by = ["latitude", "longitude"]
        hpc_sweep.run(spec(self.folder / "train.zarr", self.store, by, RIDGE))

    def generate(self, steps: int) -> None:
        """Write the data to predict."""
        self._write(self.data, steps * HOURS, target=False)

    def _write(self, path: Path, hours: int, *, target: bool) -> None:
        import numpy as np
        import zarr

        remove(path)
        rng = np.random.default_rng(hours)
        group = zarr.create_group(path)
        dims = ("latitude", "longitude", "time")
        for number, dim in enumerate(dims):
            length = hours if dim == "time" else SIDE
            made = group.create_array(dim, shape=(length,), dtype="f8", dimension_names=(dim,))
            made[:] = np.arange(length) + 0.25 * number
        for name in (*FEATURES, *(["y"] if target else [])):
            made = group.create_array(
                name,
                shape=(SIDE, SIDE, hours),
                chunks=(TILE, TILE, HOURS),
                dtype="f4",
                dimension_names=dims,
                compressors=None,
            )
            for low in range(0, hours, HOURS):
                size = (SIDE, SIDE, min(HOURS, hours - low))
                made[:, :, low : low + HOURS] = rng.standard_normal(size, dtype=np.float32)
        self.input_bytes = len(FEATURES) * SIDE * SIDE * hours * 4

    def peer(self, client: Any) -> None:
        """Predict block by block with xarray."""
        import numpy as np
        import xarray as xr

        remove(self.peer_out)
        models = np.array(self.models(), dtype=object).reshape(SIDE, SIDE)

        def predicted(block: Any) -> Any:
            X = np.stack([block[name].values for name in FEATURES], axis=-1).astype(float)
            found = np.empty(X.shape[:-1])
            rows, columns = (block[dim].values.astype(int) for dim in ("latitude", "longitude"))
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    found[i, j] = models[row, column].predict(X[i, j])
            return xr.Dataset({"y": (block["f0"].dims, found)}, block.coords)

        data = xr.open_zarr(self.data, chunks={}, consolidated=False)[list(FEATURES)]
        template = data[["f0"]].rename(f0="y").astype(float)
        made = data.map_blocks(predicted, template=template)
        made.to_zarr(self.peer_out, consolidated=False)


class Whole(Case):
    """One tree for all of a long table of numbers."""

    name, peer_name = "whole", "ParallelPostFit"

    def sweep(self) -> None:
        """Search once, on some thousand samples."""
        import hpc_sweep

        self._write(self.folder / "train.zarr", 5000, target=True)
        hpc_sweep.run(spec(self.folder / "train.zarr", self.store, [], TREE))

    def generate(self, steps: int) -> None:
        """Write the data to predict."""
        self._write(self.data, 6 * steps * ROWS, target=False)

    def _write(self, path: Path, rows: int, *, target: bool) -> None:
        import numpy as np
        import zarr

        remove(path)
        rng = np.random.default_rng(rows)
        group = zarr.create_group(path)
        for name in (*FEATURES, *(["y"] if target else [])):
            made = group.create_array(
                name,
                shape=(rows,),
                chunks=(ROWS,),
                dtype="f4",
                dimension_names=("sample",),
                compressors=None,
            )
            for low in range(0, rows, ROWS):
                count = min(ROWS, rows - low)
                made[low : low + count] = rng.standard_normal(count, dtype=np.float32)
        self.input_bytes = len(FEATURES) * rows * 4

    def peer(self, client: Any) -> None:
        """Predict the collection with dask-ml."""
        import dask.array as da
        import xarray as xr
        from dask_ml.wrappers import ParallelPostFit

        remove(self.peer_out)
        (model,) = self.models()
        data = xr.open_zarr(self.data, chunks={}, consolidated=False)
        X = da.stack([data[name].data for name in FEATURES], axis=1).astype(float)
        y = ParallelPostFit(model).predict(X.rechunk({1: -1}))
        found = xr.Dataset({"y": ("sample", y)})
        found.to_zarr(self.peer_out, consolidated=False)


RIDGE = {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [1.0]}}
TREE = {
    "estimator": "sklearn.tree.DecisionTreeRegressor",
    "param_grid": {"max_depth": [8], "random_state": [0]},
}


def spec(data: Path, store: Path, by: list[str], model: dict[str, Any]) -> dict[str, Any]:
    """Return a spec of one candidate."""
    return {
        "data": {
            "store": str(data),
            "features": list(FEATURES),
            "target": "y",
            "partition_by": by,
        },
        "models": [model],
        "search": {"cv": 2},
        "cluster": {"kind": "local", "workers": WORKERS, "memory": "1GB"},
        "output": {"store": str(store)},
    }


def remove(*folders: Path) -> None:
    """Delete folders, where they are."""
    import shutil

    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


class Memory:
    """Memory of workers and of this process, seen twenty times a second."""

    def __init__(self, client: Any) -> None:
        self._pids = list(client.run(os.getpid).values())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.worker_mb = self.driver_mb = 0

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        workers = [psutil.Process(pid) for pid in self._pids]
        while not self._ended.wait(0.05):
            self.driver_mb = max(self.driver_mb, own.memory_info().rss // 1_000_000)
            for worker in workers:
                with contextlib.suppress(psutil.Error):
                    self.worker_mb = max(self.worker_mb, worker.memory_info().rss // 1_000_000)


if __name__ == "__main__":
    sys.exit(main())
