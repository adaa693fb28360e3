"""What of a search runs on workers: outlines of partitions, and slices of requests."""

from __future__ import annotations

import hashlib
import json
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.plan import Unit
from hpc_sweep.search import Slice
from hpc_sweep.strategies import Counts, Found, Request
from hpc_sweep.work.evaluation import (
    Partition,
    evaluate_partitions,
    partitions_of,
    task_of,
    without_samples,
)
from hpc_sweep.work.outcomes import Outcome
from hpc_sweep.work.refits import Refit, refit_of
from hpc_sweep.work.tasks import (
    Context,
    bench_of,
    check_strategy,
    check_versions,
    guarded_outcomes,
)


@dataclass(frozen=True)
class Outline:
    """What the driver knows of a partition.

    Attributes
    ----------
    outcome : Outcome or None
        Where there is nothing to search.
    refit : Refit
        How many samples are held out.
    n_samples, n_classes : int
        How many samples, and different values of the target where a model is a classifier.
    counts : Counts
        Samples of its splits.
    names : sequence of str
        What messages call its splits.
    columns : ndarray of intp or None
        Where these stand in the store.
    seed : int
        What is drawn with here.
    refused : mapping of int to str
        By model, why there are no splits.
    """

    outcome: Outcome | None
    refit: Refit
    n_samples: int = 0
    n_classes: int = 1
    counts: Counts = field(default_factory=dict)
    names: Sequence[str] = ()
    columns: NDArray[np.intp] | None = None
    seed: int = 0
    refused: Mapping[int, str] = field(default_factory=dict)

    def part(self, columns: Sequence[int] | None, counts: Counts | None) -> Outline:
        """Return it as it is: workers cut samples."""
        return self


@dataclass(frozen=True)
class Answered:
    """What a worker found of a slice.

    Attributes
    ----------
    found : Found
        Rows and columns are those of the slice.
    seconds : float
        How long its task took.
    peak_bytes : int
        Most memory that the worker had until then.
    """

    found: Found
    seconds: float
    peak_bytes: int

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values, which keep every bit."""
        found = self.found
        return {
            "scores": {metric: scores.tolist() for metric, scores in found.scores.items()},
            "fit_time": found.fit_time.tolist(),
            "score_time": found.score_time.tolist(),
            "failed": found.failed.tolist(),
            "messages": [*found.messages],
            "states": [*found.states.items()],
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Answered:
        """Return what `facts` gave."""
        found = Found(
            {metric: np.array(scores) for metric, scores in facts["scores"].items()},
            np.array(facts["fit_time"]),
            np.array(facts["score_time"]),
            np.array(facts["failed"]),
            facts["messages"],
            dict(facts["states"]),
        )
        return cls(found, facts["seconds"], facts["peak_bytes"])


def digest_of(request: Request, versions: Mapping[str, str]) -> str:
    """Return what tells a request from others, and answers of other versions from those of these.

    Parameters
    ----------
    request : Request
        Whole.
    versions : mapping of str to str
        Of libraries.
    """
    candidates = [(candidate.model, candidate.json) for candidate in request.candidates]
    counts = None if request.counts is None else sorted(request.counts.items())
    content = json.dumps([candidates, counts, sorted(versions.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def sliced(request: Request, part: Slice) -> Request:
    """Return what is asked of some candidates and splits of a request."""
    candidates = [request.candidates[row] for row in part.rows]
    return replace(
        request, key=(request.key, part.rows), candidates=candidates, columns=part.columns
    )


def outline_of(context: Context, unit: Unit, kept: Partition | None) -> Outline:
    """Return what the driver is to know of a unit's one partition."""
    check_versions(context)
    check_strategy(context.spec)
    bench = bench_of(context)
    (partition,) = partitions_of(bench, unit, kept=() if kept is None else (kept,))
    refit = refit_of(partition.samples)
    outcome = without_samples(bench, unit, partition)
    if outcome is not None:
        return Outline(outcome, refit)
    task, refused = task_of(bench, unit, partition)
    return Outline(
        None,
        refit,
        task.n_samples,
        task.n_classes if bench.has_classifier else 1,
        task.counts,
        task.names,
        task.columns,
        task.seed,
        refused,
    )


def evaluate_request(
    context: Context, unit: Unit, request: Request, guarded: bool, kept: Partition | None
) -> Answered:
    """Evaluate what is asked of a unit's one partition."""
    begin = time.perf_counter()
    check_versions(context)
    bench = bench_of(context)
    read: tuple[Partition, ...] = () if kept is None else (kept,)
    if guarded:
        outcomes = guarded_outcomes(context, unit, begin, None, read, request)
    else:
        batches = evaluate_partitions(bench, unit, begin, kept=read, request=request)
        outcomes = [each for batch in batches for each in batch]
    bench.check_source()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Answered(outcomes[0].found, time.perf_counter() - begin, peak)
