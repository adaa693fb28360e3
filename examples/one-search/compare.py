"""The search of sweep.yaml in three ways: serial, on all cores, on a cluster.

python compare.py
python compare.py --samples 2000
python compare.py --set cluster.kind=slurm --set cluster.queue=compute --set cluster.memory=2GB
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from samples import samples
from sklearn.svm import SVC

import hpc_sweep

SPEC = Path(__file__).with_name("sweep.yaml")


@dataclass(frozen=True)
class Row:
    """One way, what it took and found."""

    way: str
    seconds: float
    C: float
    score: float

    def __str__(self) -> str:
        return f"{self.way:<24} {self.seconds:9.1f} {self.C:8g} {self.score:9.4f}"


def compare(n_samples: int, settings: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each way; all find the same."""
    cores = len(os.sched_getaffinity(0))
    spec = hpc_sweep.load_spec(SPEC, settings)
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "serial": lambda: in_process(n_samples, n_jobs=1),
        f"{cores} cores": lambda: in_process(n_samples, n_jobs=cores),
        f"cluster ({spec.cluster.kind})": lambda: on_cluster(n_samples, settings),
    }
    for way, search in ways.items():
        began = time.perf_counter()
        found = search()
        yield Row(way, time.perf_counter() - began, *found)


def in_process(n_samples: int, n_jobs: int) -> tuple[float, float]:
    """Return the best C and its score by the drop-in for scikit-learn's search."""
    X, y = samples(n_samples)
    values = hpc_sweep.load_spec(SPEC).models[0].param_grid["C"]
    grid = {"C": list(values)}
    search = hpc_sweep.GridSearchCV(SVC(), grid, cv=5, scoring="accuracy", n_jobs=n_jobs)
    search.fit(X, y)
    return search.best_params_["C"], search.best_score_


def on_cluster(n_samples: int, settings: Sequence[str]) -> tuple[float, float]:
    """Return the same by a sweep; its store goes into a folder beside the spec, and away."""
    with tempfile.TemporaryDirectory(dir=SPEC.parent) as folder:
        store = Path(folder) / "results.zarr"
        size = f"data.loader_args.n_samples={n_samples}"
        results = hpc_sweep.run(SPEC, [size, *settings], store=store).load()
    return float(results["best_param_C"]), float(results["best_score"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="One search in three ways.")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    print(f"{'way':<24} {'seconds':>9} {'best C':>8} {'accuracy':>9}")
    for row in compare(given.samples, given.settings):
        print(row, flush=True)


if __name__ == "__main__":
    main()
