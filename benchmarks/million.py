"""A million pixels, 40 ridge fits in each, from zarr to zarr; the memory of the driver meanwhile.

python benchmarks/million.py [--side N] [--samples N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))

FEATURES = ("wet", "warm", "green", "rain", "wind")
CHUNK = 50
WORKERS = 2


def main(arguments: list[str] | None = None) -> int:
    """Generate, sweep, and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=1000, help="N × N pixels (1000)")
    parser.add_argument("--samples", type=int, default=60, help="samples of each (60)")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args(arguments)
    import hpc_sweep
    from hpc_sweep.store import read_events, run_folder

    with tempfile.TemporaryDirectory(prefix="million-") as folder:
        data, results = Path(folder) / "data.zarr", Path(folder) / "results.zarr"
        generate(data, options.side, options.samples)
        memory = Memory()
        begin = time.perf_counter()
        with memory:
            opened = hpc_sweep.run(spec(data, results))
        whole_s = time.perf_counter() - begin
        done = bool((opened["status"] == 1).all())
        events = list(read_events(run_folder(results).events))
        figures = {
            "pixels": options.side**2,
            "fits": options.side**2 * 40,
            "all_done": done,
            "whole_s": whole_s,
            "work_s": next(e["seconds"] for e in events if e["event"] == "run_ended"),
            "files": sum(1 for path in results.rglob("*") if path.is_file()),
            "store_bytes": sum(path.stat().st_size for path in results.rglob("*")),
            "driver_mb": memory.thirds(),
        }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if done else 1


def generate(path: Path, side: int, samples: int) -> None:
    """Write pixels strip by strip, so that they never are in memory at once."""
    import numpy as np
    import zarr

    rng = np.random.default_rng(0)
    group = zarr.open_group(path, mode="w")
    shape, dims = (side, side, samples), ("latitude", "longitude", "time")
    chunks = (CHUNK, CHUNK, samples)
    arrays = {
        name: group.create_array(
            name, shape=shape, chunks=chunks, dtype="float32", dimension_names=dims
        )
        for name in (*FEATURES, "slope")
    }
    for name, size in zip(dims, shape, strict=True):
        axis = group.create_array(name, shape=(size,), dtype="float64", dimension_names=(name,))
        axis[:] = np.arange(size)
    for first in range(0, side, CHUNK):
        strip = slice(first, first + CHUNK)
        states = rng.standard_normal((len(FEATURES), *arrays["slope"][strip].shape), "float32")
        for name, values in zip(FEATURES, states, strict=True):
            arrays[name][strip] = values
        noise = rng.standard_normal(states.shape[1:], "float32")
        arrays["slope"][strip] = states.sum(axis=0) + noise


def spec(data: Path, results: Path) -> dict[str, Any]:
    """Return the spec: ridge with 8 penalties in 5 folds."""
    return {
        "name": "million",
        "data": {
            "store": str(data),
            "features": list(FEATURES),
            "target": "slope",
            "partition_by": ["latitude", "longitude"],
        },
        "models": [
            {
                "estimator": "sklearn.linear_model.Ridge",
                "param_grid": {"alpha": [10.0**i for i in range(-3, 5)]},
            }
        ],
        "search": {"cv": 5, "scoring": "r2"},
        "cluster": {"kind": "local", "workers": WORKERS},
        "output": {"store": str(results)},
    }


class Memory:
    """Looks at this process's memory twice a second."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._stop = threading.Event()

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._stop.wait(0.5):
            self._seen.append(me.memory_info().rss / 1e6)

    def thirds(self) -> list[float]:
        """Return the most megabytes in each third of the time."""
        third = max(1, len(self._seen) // 3)
        parts = (self._seen[:third], self._seen[third : 2 * third], self._seen[2 * third :])
        return [round(max(part, default=0.0), 1) for part in parts]


if __name__ == "__main__":
    sys.exit(main())
