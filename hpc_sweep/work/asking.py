"""Searches of partitions, side by side: who asks for the same is answered together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from hpc_sweep.plan import Unit
from hpc_sweep.search import Evaluation, Task
from hpc_sweep.strategies import Found, Request, Unsearchable
from hpc_sweep.work.bench import Bench

Asked = dict[Hashable, list[tuple[int, Request]]]


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
    strategy = bench.strategy
    searches = [strategy.search(task, unit.first, unit.last) for task in tasks]
    found: dict[int, Found] = {}

    def go_on(index: int, answer: Evaluation | None, asked: Asked) -> None:
        try:
            request = searches[index].send(answer)  # type: ignore[arg-type]
        except StopIteration as end:
            found[index] = end.value
        except Unsearchable as error:
            found[index] = strategy.nothing(unit.first, unit.last, str(error))
        except Exception as error:  # such as a user's sampler
            reason = f"the search failed: {type(error).__name__}: {' '.join(str(error).split())}"
            found[index] = strategy.nothing(unit.first, unit.last, reason)
        else:
            asked[request.key].append((index, request))

    asked: Asked = defaultdict(list)
    for index in range(len(tasks)):
        go_on(index, None, asked)
    while asked:
        asked, answering = defaultdict(list), asked
        for same in answering.values():
            evaluator = bench.evaluator(same[0][1])
            answers = evaluator.evaluate([_task(tasks[index], request) for index, request in same])
            for (index, request), answer in zip(same, answers, strict=True):
                _refuse(answer, request, refusals[index])
                go_on(index, answer, asked)
    return [found[index] for index in range(len(tasks))]


def _task(task: Task, request: Request) -> Task:
    return task if request.splits is None else replace(task, splits=request.splits)


def _refuse(answer: Evaluation, request: Request, refused: Mapping[int, str]) -> None:
    """Fail the candidates of models for which a partition has no splits."""
    for row, candidate in enumerate(request.candidates if refused else ()):
        if candidate.model in refused:
            answer.failed[row], answer.messages[row] = True, refused[candidate.model]
