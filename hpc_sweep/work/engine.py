"""A run by dask-ml: the driver searches partition by partition on the cluster.

Units, parts, folds, and so stops and restarts, are those of any run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from dask import delayed
from distributed import Client, Future

from hpc_sweep.candidates import Candidate
from hpc_sweep.plan import Unit
from hpc_sweep.search import DaskML, Evaluation, Split, Task
from hpc_sweep.store import Choice
from hpc_sweep.strategies import Request
from hpc_sweep.work.asking import Searching
from hpc_sweep.work.bench import Bench, open_bench
from hpc_sweep.work.evaluation import (
    Partition,
    groups_of,
    outcome_of,
    partitions_of,
    task_of,
    without_samples,
)
from hpc_sweep.work.outcomes import Outcome
from hpc_sweep.work.refits import Refit, choices_of, has_all, refit_of, refit_together
from hpc_sweep.work.remains import NOBODY, Remains
from hpc_sweep.work.tasks import Context, bench_of, check_versions, key_of
from hpc_sweep.work.threads import Handle, ThreadTasks


@dataclass(frozen=True)
class Loaded:
    """One partition on a worker; the driver has it without its arrays.

    Attributes
    ----------
    outcome : Outcome or None
        Where there is nothing to search.
    task : Task or None
        Its samples and splits.
    n_samples : int
        How many.
    refused : mapping of int to str
        By model, why there are no splits.
    partition : Partition or None
        What its best candidate is fitted on again.
    refit : Refit
        How many samples are held out.
    """

    outcome: Outcome | None
    task: Task | None = None
    n_samples: int = 0
    refused: Mapping[int, str] = field(default_factory=dict)
    partition: Partition | None = None
    refit: Refit = field(default_factory=Refit)


class DaskMLTasks(ThreadTasks):
    """Units are searched by dask-ml.

    A unit whose workers died twice is left to the guard, which dask-ml does not have.
    """

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Future | Handle:
        """Search a unit in a thread."""
        if guarded:
            return self._context.evaluate(client, unit, guarded=True)
        return super().evaluate(client, unit, guarded=False)

    def _outcomes(
        self, client: Client, bench: Bench, unit: Unit, *, guarded: bool
    ) -> Iterator[Outcome]:
        for group in groups_of(bench, unit):
            part = replace(unit, start=group[0], stop=group[-1] + 1)
            yield from self._group(client, bench, part)

    def _group(self, client: Client, bench: Bench, unit: Unit) -> Iterator[Outcome]:
        """Load partitions that lie together, and search one after the other."""
        key = key_of("load", unit.key)
        loaded = client.submit(load, self._context, unit, key=key, pure=False)
        known = client.submit(facts, loaded, key=f"{key}-facts", pure=False).result()
        for number, each in enumerate(known):
            if each.task is None:
                yield replace(each.outcome, refit=each.refit)
                continue
            X, y = (
                delayed(client.submit(array, loaded, number, name, key=f"{key}-{number}-{name}"))
                for name in ("X", "y")
            )
            task = replace(each.task, X=X, y=y if bench.source.targets else None)
            searching = Searching(
                bench,
                unit,
                {number: task},
                {number: each.refused},
                engine=lambda request: self._engine(client, bench, request),
            )
            outcome = outcome_of(each.n_samples, task, searching.run()[number])
            refit = each.refit
            if bench.refits and has_all(bench.strategy, unit):
                (choice,) = choices_of(bench.strategy, unit, [outcome.found])
                again = self._context, loaded, number, choice
                refit = client.submit(refit_of_loaded, *again, key=f"{key}-{number}-refit").result()
            yield replace(outcome, refit=refit)

    def _engine(self, client: Client, bench: Bench, request: Request) -> DaskML:
        def explain(task: Task, rows: Sequence[int]) -> Evaluation:
            candidates = [request.candidates[row] for row in rows]
            arguments = (self._context, candidates, task.X, task.y, task.splits, task.seed)
            call = delayed(evaluate_alone, pure=False)(*arguments)
            found: Evaluation = client.compute(call).result()
            return found

        def compute(graph: Any, keys: Any) -> Any:
            return client.get(graph, keys, sync=True)

        return DaskML(bench.evaluator(request), compute, explain)


# on workers


def load(context: Context, unit: Unit) -> list[Loaded]:
    """Read the partitions of a unit, to be kept."""
    check_versions(context)
    bench = bench_of(context)
    found = []
    for each in partitions_of(bench, unit):
        outcome = without_samples(bench, unit, each)
        refit = refit_of(each.samples)
        if outcome is None:
            task, refused = task_of(bench, unit, each)
            found.append(Loaded(None, task, task.n_samples, refused, each, refit))
        else:
            found.append(Loaded(outcome, refit=refit))
    return found


def facts(loaded: Sequence[Loaded]) -> list[Loaded]:
    """Return all that is known of partitions but their arrays."""
    return [
        each
        if each.task is None
        else replace(each, task=replace(each.task, X=None, y=None), partition=None)
        for each in loaded
    ]


def refit_of_loaded(
    context: Context, loaded: Sequence[Loaded], number: int, choice: Choice | None
) -> Refit:
    """Fit the best candidate of a partition again, without dask-ml."""
    partition = cast(Partition, loaded[number].partition)
    (refit,) = refit_together(bench_of(context), [partition], [choice], NOBODY, Remains())
    return refit


def array(loaded: Sequence[Loaded], number: int, name: str) -> Any:
    """Return X or y of a partition."""
    return getattr(loaded[number].task, name)


def evaluate_alone(
    context: Context,
    candidates: Sequence[Candidate],
    X: Any,
    y: Any,
    splits: Mapping[int, Sequence[Split]],
    seed: int,
) -> Evaluation:
    """Evaluate candidates of one partition without dask-ml."""
    key = tuple(candidate.id for candidate in candidates)
    bench = open_bench(context.store, context.spec, context.revision)
    evaluator = bench.evaluator(Request(key, candidates))
    return evaluator.evaluate([Task(X, y, splits, seed)])[0]
