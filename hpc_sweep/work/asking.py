"""Searches of partitions, side by side: who asks for the same is answered together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpc_sweep.plan import Unit
from hpc_sweep.search import Evaluation, Task
from hpc_sweep.strategies import Found, Request, Unsearchable
from hpc_sweep.work.bench import Bench

Asked = dict[Hashable, list[tuple[int, Request]]]
"""Indices of partitions with their requests, by the requests' key."""


def search(
    bench: Bench, unit: Unit, tasks: Sequence[Task], refusals: Sequence[Mapping[int, str]]
) -> list[Found]:
    """Search some partitions by the strategy of the sweep.

    Parameters
    ----------
    bench : Bench
        Has the strategy and the evaluators.
    unit : Unit
        Which columns.
    tasks : sequence of Task
        The partitions.
    refusals : sequence of mapping of int to str
        Why a partition has no splits for a model.

    Returns
    -------
    list of Found
        One a partition. A partition whose search raises fails alone.
    """
    searches = _Searches(bench, unit, tasks)
    for index, (task, refused) in enumerate(zip(tasks, refusals, strict=True)):
        if refused and not task.splits:
            searches.give_up(index, "; ".join(dict.fromkeys(refused.values())))
        else:
            searches.go_on(index, None)
    while searches.asked:
        asked, searches.asked = searches.asked, defaultdict(list)
        for same in asked.values():
            evaluator = bench.evaluator(same[0][1])
            answers = evaluator.evaluate([_task(tasks[index], request) for index, request in same])
            for (index, request), answer in zip(same, answers, strict=True):
                _refuse(answer, request, refusals[index])
                searches.go_on(index, answer)
    return [searches.found[index] for index in range(len(tasks))]


class _Searches:
    """The searches of some partitions, as far as they are."""

    def __init__(self, bench: Bench, unit: Unit, tasks: Sequence[Task]) -> None:
        self._strategy, self._columns = bench.strategy, (unit.first, unit.last)
        self._searches = [self._strategy.search(task, *self._columns) for task in tasks]
        self.found: dict[int, Found] = {}
        self.asked: Asked = defaultdict(list)

    def go_on(self, index: int, answer: Any) -> None:
        """Answer a search, or begin it with None; note what it asks or has found."""
        try:
            request = self._searches[index].send(answer)
        except StopIteration as end:
            self.found[index] = end.value
        except Unsearchable as error:
            self.give_up(index, str(error))
        except Exception as error:  # such as a user's sampler
            words = " ".join(str(error).split())
            self.give_up(index, f"the search failed: {type(error).__name__}: {words}")
        else:
            self.asked[request.key].append((index, request))

    def give_up(self, index: int, reason: str) -> None:
        """Note why a partition cannot be searched."""
        self.found[index] = self._strategy.nothing(*self._columns, reason)


def _task(task: Task, request: Request) -> Task:
    return task if request.splits is None else replace(task, splits=request.splits)


def _refuse(answer: Evaluation, request: Request, refused: Mapping[int, str]) -> None:
    """Fail the candidates of models for which a partition has no splits."""
    for row, candidate in enumerate(request.candidates if refused else ()):
        if candidate.model in refused:
            answer.failed[row], answer.messages[row] = True, refused[candidate.model]
