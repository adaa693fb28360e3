"""One partition that is larger than a worker: blobs, trained block by block, and the peak memory.

python benchmarks/large.py [--samples N] [--features N] [--memory SIZE] [--strategy S] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))

CHUNK = 250_000
BLOCK = 500_000
WORKERS = 2


def main(arguments: list[str] | None = None) -> int:
    """Generate, sweep, and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=4_000_000, help="of the partition (4000000)")
    parser.add_argument("--features", type=int, default=20, help="float32 (20)")
    parser.add_argument("--memory", default="600MB", help="of each of the two workers (600MB)")
    parser.add_argument("--strategy", choices=("incremental", "hyperband"), default="hyperband")
    parser.add_argument("--max-iter", type=int, default=9, help="blocks per candidate (9)")
    parser.add_argument("--folder", type=Path, help="where data and results are written")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args(arguments)
    import hpc_sweep
    from hpc_sweep.store import read_events, run_folder

    with tempfile.TemporaryDirectory(prefix="large-", dir=options.folder) as folder:
        data, results = Path(folder) / "blobs.zarr", Path(folder) / "results.zarr"
        generate(data, options.samples, options.features)
        memory, begin = Memory(), time.perf_counter()
        with memory:
            opened = hpc_sweep.run(spec(data, results, options))
        whole_s = time.perf_counter() - begin
        done = int(opened["partition_status"]) == 1
        events = list(read_events(run_folder(results).events))
        figures = {
            "strategy": options.strategy,
            "samples": options.samples,
            "features": options.features,
            "arrays_mb": round(options.samples * (options.features + 1) * 4 / 1e6),
            "memory_of_workers": f"{WORKERS} x {options.memory}",
            "candidates": int(opened.sizes["candidate"]),
            "blocks": -(-options.samples // BLOCK),
            "partial_fit_calls": int(opened["partial_fit_calls"].sum()),
            "done": done,
            "best_score": float(opened["best_score"]),
            "whole_s": round(whole_s, 1),
            "work_s": next(e["seconds"] for e in events if e["event"] == "run_ended"),
            "workers_lost": sum(e["event"] == "unit_lost" for e in events),
            **memory.figures(),
        }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if done else 1


def generate(path: Path, samples: int, features: int) -> None:
    """Write two blobs, chunk by chunk."""
    import numpy as np
    import zarr

    rng = np.random.default_rng(0)
    centers = rng.normal(0, 0.3, (2, features))
    group = zarr.create_group(path)
    names = [*(f"f{number}" for number in range(features)), "blob"]
    arrays = [
        group.create_array(
            name,
            shape=(samples,),
            chunks=(CHUNK,),
            dtype="i4" if name == "blob" else "f4",
            dimension_names=("sample",),
        )
        for name in names
    ]
    for low in range(0, samples, CHUNK):
        high = min(low + CHUNK, samples)
        blob = rng.integers(0, 2, high - low)
        values = rng.standard_normal((high - low, features), dtype=np.float32) + centers[blob]
        for array, column in zip(arrays, [*values.T, blob], strict=True):
            array[low:high] = column


def spec(data: Path, results: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return a spec of one partition."""
    search = {"strategy": options.strategy, "max_iter": options.max_iter, "block_samples": BLOCK}
    return {
        "data": {
            "store": str(data),
            "features": [f"f{number}" for number in range(options.features)],
            "target": "blob",
            "partition_by": [],
            "dtype": "float32",
        },
        "models": [
            {
                "estimator": "sklearn.linear_model.SGDClassifier",
                "param_distributions": {"alpha": {"scipy.stats.loguniform": [1e-6, 1]}},
            }
        ],
        "search": search,
        "cluster": {"kind": "local", "workers": WORKERS, "memory": options.memory},
        "output": {"store": str(results)},
    }


class Memory:
    """Memory of this process and of its workers, seen ten times a second."""

    def __init__(self) -> None:
        self._peaks: dict[int, int] = defaultdict(int)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        while not self._ended.wait(0.1):
            for process in (own, *own.children(recursive=True)):
                try:
                    self._peaks[process.pid] = max(
                        self._peaks[process.pid], process.memory_info().rss
                    )
                except psutil.Error:
                    continue

    def figures(self) -> dict[str, Any]:
        """Return the peaks in MB: of this process, which drives, and of the largest others."""
        driver = self._peaks.pop(os.getpid(), 0)
        workers = sorted(self._peaks.values(), reverse=True)[:WORKERS]
        return {
            "driver_mb": round(driver / 1e6),
            "workers_mb": [round(each / 1e6) for each in workers],
        }


if __name__ == "__main__":
    sys.exit(main())
